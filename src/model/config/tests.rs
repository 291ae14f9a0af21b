//! config.json's variants, and what is refused.

use serde_json::{Value, json};

use super::{Config, Dtype, LayerType};

fn qwen() -> Value {
    json!({
        "model_type": "qwen3_5", "tie_word_embeddings": true, "image_token_id": 268, "video_token_id": 269,
        "something_new": {"a": 1}, "pad_token_id": null,
        "text_config": {
            "model_type": "qwen3_5_text", "dtype": "bfloat16", "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "hidden_act": "silu", "rms_norm_eps": 1e-6, "vocab_size": 320, "max_position_embeddings": 4096,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
            "linear_value_head_dim": 24, "mtp_num_hidden_layers": 1,
            "rope_parameters": {"mrope_interleaved": true, "mrope_section": [2, 1, 1], "rope_type": "default",
                                "rope_theta": 10000000, "partial_rotary_factor": 0.25}
        },
        "vision_config": {
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "num_position_embeddings": 64,
            "out_hidden_size": 64, "hidden_act": "gelu_pytorch_tanh", "deepstack_visual_indexes": []
        }
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut json = qwen();
    let (section, key) = path.rsplit_once('/').expect("a path such as /text_config/head_dim");
    json.pointer_mut(section).unwrap()[key] = value;
    json
}

#[test]
fn layer_types_follow_the_interval_where_they_are_not_listed() {
    let config = Config::from_json(&qwen()).unwrap();
    let full: Vec<usize> = (0..8).filter(|layer| config.text.layer_types[*layer] == LayerType::FullAttention).collect();
    assert_eq!(full, [3, 7]);
}

#[test]
fn the_old_way_to_write_rotary_settings_reads_the_same() {
    let mut old = qwen();
    let text = old["text_config"].as_object_mut().unwrap();
    text.remove("rope_parameters");
    text.insert("rope_theta".into(), json!(10000000));
    text.insert("rope_scaling".into(), json!({"type": "default", "mrope_section": [2, 1, 1]}));
    assert_eq!(Config::from_json(&old).unwrap(), Config::from_json(&qwen()).unwrap());
}

#[test]
fn a_text_only_export_has_its_keys_at_the_top() {
    let mut text = qwen()["text_config"].clone();
    text["tie_word_embeddings"] = json!(true);
    let config = Config::from_json(&text).unwrap();
    assert_eq!(config.vision, None);
    assert_eq!(config.text, Config::from_json(&qwen()).unwrap().text);
    assert!(config.tie_word_embeddings);
    assert_eq!(config.dtype, Dtype::Bfloat16);
}

#[test]
fn what_the_layers_do_not_implement_is_refused_by_name() {
    let refused = [
        (
            "/text_config/hidden_act",
            json!("gelu"),
            "`text_config.hidden_act`: \"gelu\" is not implemented, only \"silu\"",
        ),
        (
            "/text_config/attention_bias",
            json!(true),
            "`text_config.attention_bias`: true is not implemented, only false",
        ),
        ("/text_config/attn_output_gate", json!(false), "`text_config.attn_output_gate`: false is not"),
        ("/text_config/num_experts", json!(64), "`text_config.num_experts`: mixtures of experts are not implemented"),
        ("/text_config/rope_parameters/rope_type", json!("yarn"), "`text_config.rope_parameters.rope_type`: \"yarn\""),
        (
            "/text_config/rope_parameters/mrope_section",
            json!([3, 1, 1]),
            "does not add up to half of 8 rotary channels",
        ),
        ("/text_config/head_dim", json!(0), "`text_config.head_dim`: expected a positive integer, found 0"),
        ("/text_config/hidden_size", Value::Null, "`text_config.hidden_size`: it is missing"),
        ("/text_config/num_key_value_heads", json!(3), "4 is no multiple of `num_key_value_heads`, 3"),
        ("/text_config/layer_types", json!(["full_attention"]), "1 layers listed, but `num_hidden_layers` is 8"),
        ("/vision_config/deepstack_visual_indexes", json!([5]), "deepstack is not implemented"),
        ("/vision_config/out_hidden_size", json!(32), "`vision_config.out_hidden_size` is 32, but"),
        ("/quantization_config", json!({"bits": 4}), "quantised checkpoints are not supported"),
        ("/model_type", json!("llama"), "unknown `model_type` \"llama\": sardine serves qwen3_5"),
        ("/model_type", json!("qwen3_5_moe"), "unknown `model_type` \"qwen3_5_moe\""),
    ];
    for (path, value, expected) in refused {
        let error = Config::from_json(&with(path, value)).expect_err(path);
        assert!(error.contains(expected), "{path}: {error}");
        assert!(!error.contains('\n'), "{path}: {error}");
    }
}
