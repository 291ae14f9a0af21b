//! Parts of videos: which frames they have, that frames deep in a file are those that decoding all of it gives, and limits.
//!
//! Tests that decode video files need ffmpeg on PATH, and say so where it is missing.

use sardine::engine::Clip;
use sardine::media::video::sampling::Timing;
use sardine::media::{MediaLimits, Medium, Part, VideoOptions};

use crate::video::{clip_of, ffmpeg, file, frames, media, refusal, rows, times, video};

/// Frames per second of the long files, which have 120 frames and a key frame every ten.
const FPS: f64 = 5.0;
const NUM_FRAMES: usize = 120;

fn part(start: f64, end: f64) -> Part {
    Part { start: Some(start), end: Some(end) }
}

/// Every frame of a part of a file.
fn all_of(name: &str, part: Part) -> Medium {
    video(file(name), VideoOptions { part, fps: Some(FPS), ..VideoOptions::default() })
}

#[test]
fn a_part_has_the_frames_that_qwen_vl_utils_names() {
    for row in rows("parts") {
        let (total, fps) = (row["total"].as_u64().unwrap() as usize, row["fps"].as_f64().unwrap());
        let timing = Timing { num_frames: total, fps: Some(fps), seconds: total as f64 / fps };
        let part = Part { start: row["start"].as_f64(), end: row["end"].as_f64() };
        match (part.of(&timing), row["first"].as_u64(), row["last"].as_u64()) {
            (Ok((first, read)), Some(expected), Some(last)) => {
                assert_eq!((first, first + read.num_frames - 1), (expected as usize, last as usize), "{row}");
            }
            (Err(error), None, None) => assert!(error.to_string().contains("fewer than two frames"), "{row}: {error}"),
            (other, ..) => panic!("{row}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn frames_deep_in_a_file_are_those_that_decoding_all_of_it_gives() {
    let Some(ffmpeg) = ffmpeg() else { return };
    let media = media(MediaLimits { ffmpeg: Some(ffmpeg), ..MediaLimits::default() });
    for name in ["long.mp4", "long-refreshed.mp4", "long.webm"] {
        let whole = clip_of(&media, all_of(name, Part::default())).await.unwrap();
        assert_eq!(whole.groups.len() * 2, NUM_FRAMES, "{name}");
        // Before, on and after key frames, and up to the end.
        for (first, last) in
            [(0, 5), (18, 25), (20, 21), (58, 77), (60, 69), (62, 63), (98, 101), (110, 119), (118, 119)]
        {
            let range = part(first as f64 / FPS - 0.01, last as f64 / FPS + 0.01);
            let range = if first == 0 { Part { start: None, ..range } } else { range };
            let Clip { groups, seconds } = clip_of(&media, all_of(name, range)).await.unwrap();
            assert_eq!(seconds, whole.seconds[first / 2..=last / 2], "{name} {first} to {last}");
            assert!(groups == whole.groups[first / 2..=last / 2], "{name} {first} to {last}: other pixels");
        }
    }
    assert_eq!(media.held_bytes(), 0);
}

#[tokio::test]
async fn an_animation_has_parts_too() {
    let media = media(MediaLimits::default());
    let of = async |part| times(&clip_of(&media, all_of("animated.gif", part)).await.unwrap());
    assert_eq!(of(part(0.0, 0.3)).await, ["<0.1 seconds>"]);
    assert_eq!(of(part(0.4, 9.0)).await, ["<0.5 seconds>", "<0.8 seconds>"]);
}

#[tokio::test]
async fn the_length_of_a_part_is_what_counts_and_what_is_no_part_is_refused() {
    let media = media(MediaLimits { max_video_seconds: 0.5, ..MediaLimits::default() });
    let whole = refusal(&media, all_of("animated.gif", Part::default())).await;
    assert!(whole.contains("--max-video-seconds") && whole.contains("`video_start`"), "{whole}");
    assert!(clip_of(&media, all_of("animated.gif", part(0.0, 0.3))).await.is_ok());
    let beyond = refusal(&media, all_of("animated.gif", part(7.0, 8.0))).await;
    assert!(beyond.contains("from 7 s") && beyond.contains("lasts 1.00 s and has 5 frames"), "{beyond}");
    let list = frames(4, 32, 32, VideoOptions { part: part(0.0, 1.0), ..VideoOptions::default() });
    assert!(refusal(&media, list).await.contains("`video_start` and `video_end` are for video files"));
}
