//! Whole requests' pictures through `Media`: order, limits, and files made to do harm.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sardine::error::{Error, Overload};
use sardine::media::{Area, MediaLimits, Medium, Source};
use serde_json::json;

use crate::fixtures::{file, media, media_of, vision_config};

fn inline(name: &str) -> Medium {
    Source::File(Bytes::from(file(name))).into()
}

fn message(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::Invalid { message, .. }) => message,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[tokio::test]
async fn pictures_come_back_in_the_order_they_were_sent() {
    let names = ["turned.png", "rgb.png", "turned.jpg", "grey.png"];
    let sources: Vec<Medium> = names.into_iter().map(inline).collect();
    let pictures = media(MediaLimits::default()).prepare(&sources).await.unwrap();
    let upright: Vec<bool> = pictures.iter().map(|picture| picture.grid.height > picture.grid.width).collect();
    assert_eq!(upright, [true, false, true, false]);
}

#[tokio::test]
async fn a_file_a_data_url_and_bare_base64_give_the_same_picture() {
    let base64 = STANDARD.encode(file("rgb.png"));
    let sources = [
        inline("rgb.png"),
        Source::Text(format!("data:image/png;base64,{base64}")).into(),
        Source::Text(base64.trim_end_matches('=').replace('+', "-").replace('/', "_")).into(),
    ];
    let pictures = media(MediaLimits::default()).prepare(&sources).await.unwrap();
    assert_eq!(pictures[0], pictures[1]);
    assert_eq!(pictures[0], pictures[2]);
    // 50x36 grows to at least 65536 pixels in steps of 32: 320x224.
    assert_eq!((pictures[0].grid.height, pictures[0].grid.width), (14, 20));
    assert_eq!(pictures[0].patches.len(), 14 * 20 * 1536);
}

#[tokio::test]
async fn an_error_says_which_of_several_pictures_it_is_about() {
    let sources = [inline("rgb.png"), Source::File(Bytes::from_static(b"%PDF-1.7")).into()];
    let message = message(media(MediaLimits::default()).prepare(&sources).await);
    assert!(message.starts_with("picture 2 of 2: ") && message.contains("PDF"), "{message}");
}

#[tokio::test]
async fn each_limit_refuses_what_is_beyond_it_and_names_its_flag() {
    let base64 = Medium::from(Source::Text(STANDARD.encode(file("rgb.png"))));
    let limits = MediaLimits::default;
    let cases = [
        (MediaLimits { max_images: 1, ..limits() }, vec![inline("rgb.png"); 2], "--max-images"),
        (MediaLimits { max_image_bytes: 1000, ..limits() }, vec![inline("rgb.png")], "--max-image-bytes"),
        (MediaLimits { max_image_bytes: 1000, ..limits() }, vec![base64], "--max-image-bytes"),
        (MediaLimits { max_image_pixels: 1799, ..limits() }, vec![inline("rgb.png")], "--max-image-pixels"),
        (
            MediaLimits { max_request_image_bytes: 2000, ..limits() },
            vec![inline("rgb.png"); 2],
            "--max-request-image-bytes",
        ),
        (MediaLimits { max_decoded_bytes: 20_000, ..limits() }, vec![inline("rgb.png"); 2], "--max-decoded-bytes"),
        (MediaLimits { max_aspect_ratio: 1.3, ..limits() }, vec![inline("rgb.png")], "--max-aspect-ratio"),
        (
            MediaLimits { decode_timeout: Duration::from_nanos(1), ..limits() },
            vec![inline("photo-420.jpg")],
            "--decode-timeout-ms",
        ),
        (MediaLimits { max_image_tokens: 139, ..limits() }, vec![inline("rgb.png"); 2], "--max-model-len"),
    ];
    for (limits, sources, flag) in cases {
        let message = message(media(limits).prepare(&sources).await);
        assert!(message.contains(flag), "{flag}: {message}");
    }
    let just_enough = MediaLimits { max_images: 2, max_image_pixels: 1800, max_image_tokens: 140, ..limits() };
    assert!(media(just_enough).prepare(&vec![inline("rgb.png"); 2]).await.is_ok());
}

#[tokio::test]
async fn a_picture_is_resized_within_its_own_area_and_the_servers() {
    let picture = || Source::File(Bytes::from(file("rgb.png")));
    let within = |min_pixels, max_pixels| Medium::from(picture().within(Area { min_pixels, max_pixels }));
    let media = media(MediaLimits { max_resized_pixels: Some(100_000), ..MediaLimits::default() });
    let sources =
        [inline("rgb.png"), within(None, Some(20_000)), within(Some(90_000), None), within(None, Some(1 << 40))];
    let pictures = media.prepare(&sources).await.unwrap();
    let areas: Vec<usize> = pictures.iter().map(|picture| picture.grid.num_patches() * 256).collect();
    assert!(
        areas[0] >= 65_536 && areas[1] <= 20_000 && (90_000..=100_000).contains(&areas[2]) && areas[3] == areas[0],
        "{areas:?}"
    );
    for (source, what) in [
        (within(Some(100_001), None), "--max-resized-pixels"),
        (within(None, Some(1023)), "1024"),
        (within(Some(5000), Some(4000)), "min_pixels is 5000"),
    ] {
        let message = message(media.prepare(&[source]).await);
        assert!(message.contains(what), "{what}: {message}");
    }
}

#[tokio::test]
async fn the_pictures_of_all_requests_share_a_memory() {
    // One takes 70 tokens of 24 KiB.
    let media = media(MediaLimits { picture_memory: 2 * 70 * (24 << 10), ..MediaLimits::default() });
    let first = media.prepare(&[inline("rgb.png")]).await.unwrap();
    assert_eq!(media.held_bytes(), 4 * first[0].patches.len() as u64);
    let second = media.prepare(&[inline("rgb.png")]).await.unwrap();
    let full = media.prepare(&[inline("rgb.png")]).await;
    assert!(matches!(full, Err(Error::Overloaded { why: Overload::PicturesFull { .. }, .. })), "{full:?}");
    let share = first.share();
    drop(first);
    assert!(media.prepare(&[inline("rgb.png")]).await.is_err(), "whoever keeps the share keeps the memory");
    drop(share);
    assert!(media.prepare(&[inline("rgb.png")]).await.is_ok());
    drop(second);
    assert_eq!(media.held_bytes(), 0);
    // More than all of it could never be had.
    assert!(message(media.prepare(&vec![inline("rgb.png"); 3]).await).contains("--picture-memory"));
}

#[tokio::test]
async fn a_checkpoint_without_a_vision_tower_refuses_pictures_and_no_others() {
    let media = media_of(&[("config.json", json!({"model_type": "qwen3_5_text"}))], MediaLimits::default()).unwrap();
    assert!(message(media.prepare(&[inline("rgb.png")]).await).contains("reads text only"));
    assert!(media.prepare(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_checkpoint_without_a_preprocessor_file_gets_qwens_values() {
    let bare = media_of(&[("config.json", vision_config())], MediaLimits::default()).unwrap();
    let sources = [inline("rgb.png")];
    let full = media(MediaLimits::default());
    assert_eq!(*bare.prepare(&sources).await.unwrap(), *full.prepare(&sources).await.unwrap());
}
