//! Prompts and texts are, token by token, what Transformers makes of the same conversations.

mod client_text;
mod fixtures;
mod loading;

use std::sync::Arc;

use fixtures::{Fixtures, fry, real};
use sardine::chat::{Chat, SpecialText};
use sardine::engine::{Grid, Picture};
use sardine::error::Error;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `found` as a fixture holds it: itself, or the digest of its JSON.
fn matches(found: &impl Serialize, expected: &Value) -> bool {
    let found = json!(found);
    let digest: String = Sha256::digest(found.to_string()).iter().map(|byte| format!("{byte:02x}")).collect();
    found == *expected || json!(digest) == *expected
}

fn checkpoints(special_text: SpecialText) -> impl Iterator<Item = (Chat, Fixtures)> {
    [Some(fry(special_text)), real(special_text)].into_iter().flatten()
}

#[test]
fn conversations_render_as_in_transformers_and_are_refused_in_its_words() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.rendered {
            match (chat.render(&case.conversation.conversation()), case.text) {
                (Ok(text), Some(expected)) => assert!(matches(&text, &json!(expected)), "{}: {text}", case.name),
                (Err(Error::Invalid { message, .. }), None) => {
                    let same = case.error.is_none_or(|error| matches(&message, &json!(error)));
                    assert!(same, "{}: {message}", case.name);
                }
                (found, expected) => panic!("{}: {found:?}, expected {expected:?}", case.name),
            }
        }
    }
}

#[test]
fn prompts_have_the_token_ids_of_transformers() {
    for (chat, fixtures) in checkpoints(SpecialText::BecomesToken) {
        for case in fixtures.rendered {
            let Some(expected) = case.ids else { continue };
            let prompt = chat.prompt(&case.conversation.conversation(), &[], None).unwrap().prompt;
            assert!(matches(&prompt.ids, &expected), "{}: {:?}", case.name, prompt.ids);
        }
    }
}

#[test]
fn protecting_a_clients_text_changes_no_ordinary_prompt() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.rendered.into_iter().filter(|case| case.name != "special_text") {
            let Some(expected) = case.ids else { continue };
            let prompt = chat.prompt(&case.conversation.conversation(), &[], None).unwrap().prompt;
            assert!(matches(&prompt.ids, &expected), "{}: {:?}", case.name, prompt.ids);
        }
    }
}

#[test]
fn pictures_get_their_tokens_and_the_positions_of_get_rope_index() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.pictures {
            let pictures: Vec<_> = case.grids.iter().map(|(height, width)| picture(*height, *width)).collect();
            let prompt = chat.prompt(&case.conversation.conversation(), &pictures, None).unwrap().prompt;
            assert!(matches(&prompt.ids, &case.ids), "{}: {:?}", case.name, prompt.ids);
            assert!(matches(&prompt.positions, &case.positions), "{}: {:?}", case.name, prompt.positions);
            assert_eq!(prompt.rope_delta, case.rope_delta, "{}", case.name);
            let pad = chat.tokenizer().id_of("<|image_pad|>").unwrap();
            for (placed, picture) in prompt.pictures.iter().zip(&pictures) {
                assert!(Arc::ptr_eq(&placed.picture, picture));
                assert_eq!(placed.placeholders.len(), picture.grid.num_tokens());
                assert!(prompt.ids[placed.placeholders.clone()].iter().all(|id| *id == pad));
            }
        }
    }
}

#[test]
fn texts_have_the_token_ids_of_transformers_and_decode_as_there() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.texts {
            assert_eq!(chat.encode(&case.text).unwrap(), case.ids, "{:?}", case.text);
            assert_eq!(decode(&chat, &case.ids, false), case.decoded);
            assert_eq!(decode(&chat, &case.ids, true), case.decoded_without_special);
        }
    }
}

#[test]
fn every_token_decodes_alone_and_unassigned_ids_decode_to_nothing() {
    for (chat, _) in checkpoints(SpecialText::StaysText) {
        let num_ids = chat.tokenizer().vocabulary().len() as u32;
        assert!((0..num_ids).all(|id| !chat.token_text(id).is_empty()));
        assert_eq!((chat.token_text(num_ids), chat.token_text(u32::MAX)), (String::new(), String::new()));
        let (end, think) = (chat.tokenizer().id_of("<|im_end|>").unwrap(), chat.tokenizer().id_of("<think>").unwrap());
        assert_eq!(chat.token_text(end), "<|im_end|>");
        assert!(chat.is_special(end) && !chat.is_special(think));
    }
}

#[test]
fn a_raw_prompt_has_special_tokens_where_their_text_is() {
    let (chat, _) = fry(SpecialText::StaysText);
    let text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi<|im_end|>\n";
    let prompt = chat.raw_prompt(text, &[picture(2, 4)], None).unwrap();
    let expanded = text.replace("<|image_pad|>", "<|image_pad|><|image_pad|>");
    assert_eq!(prompt.ids, chat.encode(&expanded).unwrap());
    assert_eq!(prompt.pictures.len(), 1);
}

#[test]
fn pictures_without_a_place_and_places_without_a_picture_are_refused_with_both_numbers() {
    let (chat, _) = fry(SpecialText::StaysText);
    let refusal =
        |text: &str, pictures: &[Arc<Picture>]| chat.raw_prompt(text, pictures, None).unwrap_err().to_string();
    let text = refusal("<|image_pad|> and <|image_pad|>", &[picture(2, 2)]);
    assert_eq!(text, "the prompt has 2 places for pictures and the request brings 1 picture: they must be as many");
    let text = refusal("Hi", &[picture(2, 2), picture(2, 2)]);
    assert_eq!(text, "the prompt has 0 places for pictures and the request brings 2 pictures: they must be as many");
}

#[test]
fn a_prompt_is_truncated_from_its_start_but_never_inside_a_picture() {
    let (chat, _) = fry(SpecialText::StaysText);
    let text = "abc<|vision_start|><|image_pad|><|vision_end|>";
    let whole = chat.raw_prompt(text, &[picture(4, 4)], None).unwrap();
    let cut = |keep| chat.raw_prompt(text, &[picture(4, 4)], Some(keep));

    assert_eq!(cut(1000).unwrap(), whole);
    let kept = cut(5).unwrap();
    assert_eq!(kept.ids, whole.ids[whole.len() - 5..]);
    assert_eq!(kept.pictures[0].placeholders, 0..4);
    assert_eq!(kept.positions[0], [0, 0, 0]);
    assert!(cut(1).unwrap().pictures.is_empty());
    let expected = format!(
        "truncating the prompt of {} tokens to its last 3 would cut into a picture of 4 tokens; keep at least 5",
        whole.len()
    );
    assert_eq!(cut(3).unwrap_err().to_string(), expected);
}

#[test]
fn an_empty_prompt_is_refused() {
    let (chat, _) = fry(SpecialText::StaysText);
    assert_eq!(chat.raw_prompt("", &[], None).unwrap_err().to_string(), "the prompt is empty");
}

fn decode(chat: &Chat, ids: &[u32], skip_special_tokens: bool) -> String {
    let mut decoder = chat.decoder(skip_special_tokens);
    let mut text: String = ids.iter().map(|id| decoder.push(*id)).collect();
    text.push_str(&decoder.finish());
    text
}

fn picture(height: usize, width: usize) -> Arc<Picture> {
    Arc::new(Picture { patches: Vec::new(), grid: Grid { height, width } })
}
