//! Sizes, resizing and patches, bit for bit against torchvision and Transformers; and what a checkpoint may ask for.

use sardine::media::patches::patches;
use sardine::media::preprocess::Preprocess;
use sardine::media::resize::resize;
use sardine::media::size::smart_resize;
use sardine::media::{Area, MediaLimits};
use serde_json::json;

use crate::fixtures::{media_of, pair, pattern, preprocessor_config, rows, sha256, vision_config};

#[test]
fn target_sizes_are_those_of_transformers() {
    for row in rows("sizes") {
        let (height, width) = pair(&row, "from");
        assert_eq!(smart_resize(height, width, 32, 65_536, 16_777_216), Ok(pair(&row, "to")), "{height}x{width}");
    }
}

#[test]
fn a_picture_longer_than_200_times_its_width_is_refused() {
    assert!(smart_resize(201, 1, 32, 65_536, 16_777_216).is_err());
    assert!(smart_resize(1, 201, 32, 65_536, 16_777_216).is_err());
}

#[test]
fn resized_pictures_are_those_of_torchvision_bit_for_bit() {
    for row in rows("resized") {
        let ((height, width), (to_height, to_width)) = (pair(&row, "from"), pair(&row, "to"));
        let resized = resize(pattern(height, width), to_height, to_width);
        assert_eq!((resized.height, resized.width), (to_height, to_width));
        assert_eq!(
            sha256(&resized.pixels),
            row["sha256"].as_str().unwrap(),
            "{height}x{width} -> {to_height}x{to_width}"
        );
    }
}

#[test]
fn a_client_bounds_the_area_and_the_other_bound_gives_way() {
    let preprocess = Preprocess::from_json(preprocessor_config()).unwrap();
    let size = |min_pixels, max_pixels| preprocess.target_size(600, 800, Area { min_pixels, max_pixels }).unwrap();
    assert_eq!(size(None, None), (608, 800));
    assert_eq!(size(None, Some(512 * 512)), smart_resize(600, 800, 32, 65_536, 512 * 512).unwrap());
    assert_eq!(size(Some(1_000_000), None), smart_resize(600, 800, 32, 1_000_000, 16_777_216).unwrap());
    assert_eq!(size(None, Some(10_000)), (64, 96), "less than the checkpoint's smallest");
}

#[test]
fn a_picture_that_has_its_target_size_is_left_as_it_is() {
    assert_eq!(resize(pattern(96, 64), 96, 64), pattern(96, 64));
}

#[test]
fn pixel_values_are_those_of_transformers_bit_for_bit() {
    let preprocess = Preprocess::from_json(preprocessor_config()).unwrap();
    for row in rows("pixel_values") {
        let (height, width) = pair(&row, "from");
        let (to_height, to_width) = preprocess.target_size(height, width, Area::default()).unwrap();
        let grid = preprocess.grid(to_height, to_width);
        assert_eq!((grid.height, grid.width), pair(&row, "grid"));
        let values = patches(&resize(pattern(height, width), to_height, to_width), &preprocess);
        assert_eq!(values.len(), grid.num_patches() * 1536);
        for value in row["values"].as_array().unwrap() {
            let place = value[0].as_u64().unwrap() as usize;
            assert_eq!(f64::from(values[place]), value[1].as_f64().unwrap(), "{height}x{width}: value {place}");
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), row["sha256"].as_str().unwrap(), "{height}x{width}");
    }
}

#[test]
#[ignore = "a measurement: cargo test --release --test media -- --ignored --nocapture"]
fn how_long_a_photograph_of_four_megapixels_takes() {
    let preprocess = Preprocess::from_json(preprocessor_config()).unwrap();
    for _ in 0..5 {
        let photograph = pattern(1728, 2304);
        let start = std::time::Instant::now();
        let resized = resize(photograph, 896, 1184);
        let resizing = start.elapsed();
        let patches = patches(&resized, &preprocess);
        println!("resize {resizing:?}, {} patches {:?}", patches.len() / 1536, start.elapsed() - resizing);
    }
}

#[test]
fn older_keys_for_the_area_override_the_newer_ones() {
    let mut config = preprocessor_config();
    config["min_pixels"] = json!(1024);
    config["max_pixels"] = json!(2048);
    let preprocess = Preprocess::from_json(config).unwrap();
    assert_eq!((preprocess.min_pixels, preprocess.max_pixels), (1024, 2048));
}

#[test]
fn a_preparation_that_is_not_implemented_is_refused_in_one_line_that_names_it() {
    let cases = [
        ("image_processor_type", json!("CLIPImageProcessor")),
        ("do_resize", json!(false)),
        ("do_normalize", json!(false)),
        ("resample", json!(2)),
        ("merge_size", json!(3)),
        ("patch_size", json!(0)),
        ("image_std", json!([0.5, 0.0, 0.5])),
        ("image_mean", json!([0.5])),
        ("size", json!({"longest_edge": 100, "shortest_edge": 200})),
    ];
    for (key, value) in cases {
        let mut config = preprocessor_config();
        config[key] = value;
        let message = Preprocess::from_json(config).unwrap_err();
        let names_key = message.contains(key) || ["size", "image_mean"].contains(&key);
        assert!(names_key && !message.contains('\n'), "{key}: {message}");
    }
}

#[test]
fn a_preparation_that_does_not_fit_the_tower_is_refused() {
    let mut config = preprocessor_config();
    config["patch_size"] = json!(14);
    let files = [("config.json", vision_config()), ("preprocessor_config.json", config)];
    let message = media_of(&files, MediaLimits::default()).err().unwrap();
    assert!(message.contains("patch_size is 14") && message.contains("preprocessor_config.json"), "{message}");
}

#[test]
fn the_processor_file_of_transformers_5_is_read_before_the_older_one() {
    let mut nested = preprocessor_config();
    nested["resample"] = json!(0);
    let files = [
        ("config.json", vision_config()),
        ("preprocessor_config.json", preprocessor_config()),
        ("processor_config.json", json!({"image_processor": nested})),
    ];
    let message = media_of(&files, MediaLimits::default()).err().unwrap();
    assert!(message.contains("processor_config.json: resample is 0"), "{message}");
}

#[test]
fn limits_that_let_nothing_through_are_refused() {
    let limits = MediaLimits { decode_concurrency: 0, ..MediaLimits::default() };
    let message = media_of(&[("config.json", vision_config())], limits).err().unwrap();
    assert!(message.contains("--decode-concurrency"), "{message}");
}
