//! Videos, bit for bit against Transformers: which frames, at what size, in which patches, shown when; and files made to do harm.
//!
//! Tests that decode video files need ffmpeg on PATH, and say so where it is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sardine::engine::Clip;
use sardine::error::Error;
use sardine::media::video::processor::VideoProcessor;
use sardine::media::video::sampling::{Rate, Timing, indices, timestamps};
use sardine::media::video::size::{ClipArea, smart_resize};
use sardine::media::{Footage, Media, MediaLimits, Medium, Rgb, Source, Video, VideoOptions};
use serde_json::{Value, json};

use crate::fixtures::{media_of, pattern, preprocessor_config, sha256, vision_config};

pub fn file(name: &str) -> Vec<u8> {
    crate::fixtures::file(&format!("video/{name}"))
}

pub fn rows(table: &str) -> Vec<Value> {
    let expected: Value = serde_json::from_slice(&file("expected.json")).unwrap();
    expected[table].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

/// Qwen3.5's video_preprocessor_config.json.
fn processor_config() -> Value {
    json!({
        "size": {"longest_edge": 25165824, "shortest_edge": 4096},
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor", "video_processor_type": "Qwen3VLVideoProcessor",
    })
}

fn processor() -> VideoProcessor {
    VideoProcessor::from_json(processor_config()).unwrap()
}

pub fn media(limits: MediaLimits) -> Media {
    let files = [
        ("config.json", vision_config()),
        ("preprocessor_config.json", preprocessor_config()),
        ("video_preprocessor_config.json", processor_config()),
    ];
    media_of(&files, limits).unwrap()
}

/// ffmpeg, where there is one; says so where there is none.
pub fn ffmpeg() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("ffmpeg")).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no ffmpeg on PATH");
    }
    found
}

/// Whether ffmpeg is the release that the fixtures were made with: others convert colours to slightly other values.
fn is_witness(ffmpeg: &Path) -> bool {
    let output = std::process::Command::new(ffmpeg).arg("-version").output().unwrap();
    let is_witness = String::from_utf8_lossy(&output.stdout).starts_with("ffmpeg version 5.1.");
    if !is_witness {
        eprintln!("pixels are not compared: ffmpeg is not 5.1, which the fixtures were made with");
    }
    is_witness
}

fn options(options: &Value) -> VideoOptions {
    VideoOptions {
        fps: options["fps"].as_f64(),
        num_frames: options["num_frames"].as_u64().map(|number| number as usize),
        ..VideoOptions::default()
    }
}

pub fn video(bytes: Vec<u8>, options: VideoOptions) -> Medium {
    Medium::Video(Video { footage: Footage::File(Source::File(Bytes::from(bytes))), options })
}

pub async fn clip_of(media: &Media, medium: Medium) -> Result<Clip, Error> {
    Ok(media.prepare(&[medium]).await?.visuals().clips[0].clone())
}

pub async fn refusal(media: &Media, medium: Medium) -> String {
    match clip_of(media, medium).await {
        Err(Error::Invalid { message, .. }) if !message.contains('\n') => message,
        other => panic!("not refused as invalid, in one line: {other:?}"),
    }
}

fn digest(clip: &Clip) -> String {
    let values = clip.groups.iter().flat_map(|group| &group.patches);
    sha256(&values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

fn grid(clip: &Clip) -> Vec<usize> {
    vec![clip.groups.len(), clip.groups[0].grid.height, clip.groups[0].grid.width]
}

pub fn times(clip: &Clip) -> Vec<String> {
    clip.seconds.iter().map(|seconds| format!("<{seconds:.1} seconds>")).collect()
}

/// PNG of a frame without compression, so that frames can be sent as pictures.
fn png(picture: &Rgb) -> Source {
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.pixels.clone()).unwrap();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    Source::File(Bytes::from(bytes))
}

/// The same moving picture as `pattern` in make_video_fixtures.py.
fn moving(frame: usize, height: usize, width: usize) -> Rgb {
    let wide = pattern(height, width + 3 * frame);
    let pixels = (0..height).flat_map(|y| wide.row(y)[9 * frame..].to_vec()).collect();
    Rgb { height, width, pixels }
}

pub fn frames(num_frames: usize, height: usize, width: usize, options: VideoOptions) -> Medium {
    let frames = (0..num_frames).map(|frame| png(&moving(frame, height, width))).collect();
    Medium::Video(Video { footage: Footage::Frames(frames), options })
}

#[test]
fn frames_are_sampled_and_timed_as_in_transformers() {
    for row in rows("sampling") {
        let (total, fps) = (row["total"].as_u64().unwrap() as usize, row["fps"].as_f64());
        let rate = match (row["options"]["fps"].as_f64(), row["options"]["num_frames"].as_u64()) {
            (Some(fps), _) => Rate::Fps(fps),
            (_, Some(num_frames)) => Rate::NumFrames(num_frames as usize),
            _ => Rate::Usual,
        };
        let found = indices(&Timing { num_frames: total, fps, seconds: 0.0 }, rate, &processor(), usize::MAX);
        assert_eq!(found[..found.len().min(6)], numbers(&row["first"]), "{row}");
        assert_eq!(json!(sha256(json!(found).to_string().as_bytes())), row["indices"], "{row}");
        let times = timestamps(&found, fps.unwrap_or(24.0), 2);
        let times: Vec<String> =
            times[..times.len().min(200)].iter().step_by(20).map(|seconds| format!("<{seconds:.1} seconds>")).collect();
        assert_eq!(json!(times), row["times"], "{row}");
    }
}

#[test]
fn fewer_frames_are_shown_where_the_server_shows_no_more() {
    let timing = Timing { num_frames: 1000, fps: Some(25.0), seconds: 40.0 };
    assert_eq!(indices(&timing, Rate::Usual, &processor(), 5), [0, 250, 500, 749, 999]);
}

#[test]
fn frames_are_sized_as_in_transformers() {
    for row in rows("sizes") {
        let (from, area) = (numbers(&row["from"]), numbers(&row["area"]));
        let to = smart_resize(from[0], (from[1], from[2]), 2, 32, ClipArea { min: area[0], max: area[1] });
        match row["to"].as_array() {
            Some(_) => assert_eq!(to.map(|(height, width)| vec![height, width]), Ok(numbers(&row["to"])), "{row}"),
            None => assert!(to.is_err(), "{row}"),
        }
    }
    for row in rows("capped") {
        let from = numbers(&row["from"]);
        let processor = VideoProcessor { cap_pixels_per_frame: row["cap"] == true, ..processor() };
        let (height, width) = processor.target_size(from[0], (from[1], from[2]), &VideoOptions::default()).unwrap();
        let patches = from[0].div_ceil(2) * processor.frames.grid(height, width).num_patches();
        assert_eq!(json!(patches), row["patches"], "{row}");
    }
}

#[tokio::test]
async fn lists_of_frames_need_no_decoder_and_become_the_patches_of_transformers() {
    let media = media(MediaLimits::default());
    for row in rows("frames") {
        let from = numbers(&row["from"]);
        let area = |key: &str| row["size"][key].as_u64().map(|pixels| pixels as usize);
        // A client's bound from below is one on a frame.
        let options = VideoOptions {
            min_pixels: area("shortest_edge").filter(|pixels| *pixels > 4096).map(|pixels| pixels / from[0]),
            total_pixels: area("longest_edge"),
            ..VideoOptions::default()
        };
        let clip = clip_of(&media, frames(from[0], from[1], from[2], options)).await.unwrap();
        assert_eq!(json!(grid(&clip)), row["grid"], "{row}");
        assert_eq!(json!(digest(&clip)), row["sha256"], "{row}");
    }
}

#[tokio::test]
async fn a_clients_frames_are_two_a_second_unless_it_says_otherwise() {
    let media = media(MediaLimits::default());
    let shown = async |options| times(&clip_of(&media, frames(5, 32, 32, options)).await.unwrap());
    let with = |fps, num_frames| VideoOptions { fps, num_frames, ..VideoOptions::default() };
    assert_eq!(shown(with(None, None)).await, ["<0.2 seconds>", "<1.2 seconds>", "<2.0 seconds>"]);
    assert_eq!(shown(with(Some(10.0), None)).await, ["<0.1 seconds>", "<0.2 seconds>", "<0.4 seconds>"]);
    assert_eq!(shown(with(Some(1.0), Some(2))).await, ["<2.0 seconds>"]);
}

#[tokio::test]
async fn files_become_the_patches_of_transformers_with_its_decoder() {
    let Some(ffmpeg) = ffmpeg() else { return };
    let is_witness = is_witness(&ffmpeg);
    let media = media(MediaLimits { ffmpeg: Some(ffmpeg), ..MediaLimits::default() });
    for row in rows("files") {
        let clip = clip_of(&media, video(file(row["file"].as_str().unwrap()), options(&row["options"]))).await;
        let clip = clip.unwrap_or_else(|error| panic!("{row}: {error}"));
        assert_eq!(json!(grid(&clip)), row["grid"], "{row}");
        assert_eq!(json!(times(&clip)), row["times"], "{row}");
        assert!(!is_witness || json!(digest(&clip)) == row["sha256"], "{row}");
    }
    assert_eq!(media.held_bytes(), 0);
}

#[tokio::test]
async fn animated_pictures_need_no_decoder() {
    let media = media(MediaLimits::default());
    for row in rows("files").iter().filter(|row| row["file"].as_str().unwrap().starts_with("animated")) {
        let clip = clip_of(&media, video(file(row["file"].as_str().unwrap()), options(&row["options"]))).await.unwrap();
        assert_eq!(json!(times(&clip)), row["times"], "{row}");
        assert_eq!(json!(digest(&clip)), row["sha256"], "{row}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_what_to_do() {
    let Some(ffmpeg) = ffmpeg() else { return };
    let media = media(MediaLimits { ffmpeg: Some(ffmpeg), ..MediaLimits::default() });
    for (name, words) in [
        ("one-frame.mp4", "send a single frame as a picture"),
        ("sound-only.mp4", "has no video in it"),
        ("truncated-before-its-index.mp4", "moov atom not found"),
        ("truncated.mp4", "cut short"),
    ] {
        let message = refusal(&media, video(file(name), VideoOptions::default())).await;
        assert!(message.contains(words), "{name}: {message}");
    }
    let still = refusal(&media, video(crate::fixtures::file("photo-420.jpg"), VideoOptions::default())).await;
    assert!(still.contains("is a picture"), "{still}");
    let playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n".to_vec();
    assert!(refusal(&media, video(playlist, VideoOptions::default())).await.contains("send MP4"));
}

#[tokio::test]
async fn without_a_decoder_a_file_is_refused_with_what_to_send_instead() {
    for ffmpeg in [None, Some(PathBuf::from("/no/such/ffmpeg")), Some(PathBuf::from("/bin/true"))] {
        let media = media(MediaLimits { ffmpeg, ..MediaLimits::default() });
        let message = refusal(&media, video(file("h264.mp4"), VideoOptions::default())).await;
        assert!(message.contains("--ffmpeg") && message.contains("list of pictures"), "{message}");
    }
}

/// A program that says it is ffmpeg and then never ends.
#[cfg(target_os = "linux")]
fn endless(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("ffmpeg");
    std::fs::write(&program, "#!/bin/sh\n[ \"$1\" = -version ] && echo 'ffmpeg version 9.0 endless' || sleep 20\n")
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Whether a process runs whose command line names `program`.
#[cfg(target_os = "linux")]
fn runs(program: &Path) -> bool {
    let name = program.to_str().unwrap().as_bytes();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.windows(name.len()).any(|part| part == name))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_decoder_ends_with_its_request_and_at_the_time_out() {
    let folder = tempfile::tempdir().unwrap();
    let program = endless(folder.path());
    let clip = || video(file("h264.mp4"), VideoOptions::default());
    let limits = MediaLimits { ffmpeg: Some(program.clone()), ..MediaLimits::default() };
    let left = media(limits.clone());
    let medium = [clip()];
    let gone = tokio::time::timeout(Duration::from_millis(500), left.prepare(&medium)).await;
    assert!(gone.is_err(), "the decoder never ends: {gone:?}");
    let hurried = media(MediaLimits { video_timeout: Duration::from_millis(500), ..limits });
    assert!(refusal(&hurried, clip()).await.contains("--video-timeout-ms"));
    for _ in 0..100 {
        if !runs(&program) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} still runs", program.display());
}

#[tokio::test]
async fn each_limit_refuses_what_is_beyond_it_and_names_its_flag() {
    let limits = MediaLimits::default;
    let list = |num_frames| frames(num_frames, 32, 32, VideoOptions::default());
    let gif = || video(file("animated.gif"), VideoOptions::default());
    let many = VideoOptions { num_frames: Some(9), ..VideoOptions::default() };
    let cases = [
        (MediaLimits { max_video_frames: 4, ..limits() }, list(5), "--max-video-frames"),
        (MediaLimits { max_video_frames: 8, ..limits() }, video(file("animated.gif"), many), "--max-video-frames"),
        (MediaLimits { max_video_bytes: 1000, ..limits() }, gif(), "--max-video-bytes"),
        (MediaLimits { max_video_seconds: 0.9, ..limits() }, gif(), "--max-video-seconds"),
        (MediaLimits { max_image_pixels: 1000, ..limits() }, gif(), "--max-image-pixels"),
        (MediaLimits { max_image_tokens: 2, ..limits() }, gif(), "--max-model-len"),
        (MediaLimits { video_timeout: Duration::ZERO, ..limits() }, gif(), "--video-timeout-ms"),
    ];
    for (limits, medium, flag) in cases {
        let message = refusal(&media(limits), medium).await;
        assert!(message.contains(flag), "{flag}: {message}");
    }
    let several =
        media(MediaLimits { max_videos: 1, ..limits() }).prepare(&[gif(), gif()]).await.unwrap_err().to_string();
    assert!(several.contains("--max-videos"), "{several}");
    let Some(ffmpeg) = ffmpeg() else { return };
    let limits = || MediaLimits { ffmpeg: Some(ffmpeg.clone()), ..MediaLimits::default() };
    for (limits, flag) in [
        (MediaLimits { max_video_seconds: 1.9, ..limits() }, "--max-video-seconds"),
        (MediaLimits { max_image_tokens: 11, ..limits() }, "--max-model-len"),
        (MediaLimits { video_timeout: Duration::from_millis(1), ..limits() }, "--video-timeout-ms"),
    ] {
        let message = refusal(&media(limits), video(file("h264.mp4"), VideoOptions::default())).await;
        assert!(message.contains(flag), "{flag}: {message}");
    }
}

#[tokio::test]
async fn a_clients_bounds_on_pixels_hold_for_each_frame_and_never_widen_the_checkpoints() {
    let media = media(MediaLimits::default());
    let size = async |options| grid(&clip_of(&media, frames(4, 256, 320, options)).await.unwrap());
    let bounds = |min_pixels, max_pixels, total_pixels| VideoOptions {
        min_pixels,
        max_pixels,
        total_pixels,
        ..VideoOptions::default()
    };
    assert_eq!(size(bounds(None, None, None)).await, [2, 16, 20]);
    assert_eq!(size(bounds(None, Some(128 * 160), None)).await, [2, 8, 10]);
    assert_eq!(size(bounds(None, None, Some(4 * 128 * 160))).await, [2, 8, 10]);
    assert_eq!(size(bounds(Some(512 * 640), None, None)).await, [2, 32, 40]);
    assert_eq!(size(bounds(None, Some(usize::MAX), Some(usize::MAX))).await, [2, 16, 20]);
    let crossed = refusal(&media, frames(4, 256, 320, bounds(Some(1000), Some(999), None))).await;
    assert!(crossed.contains("min_pixels"), "{crossed}");
}

#[tokio::test]
async fn frames_of_different_sizes_are_refused_by_number() {
    let frames = [(64, 64), (64, 64), (64, 96)].map(|(height, width)| png(&pattern(height, width))).to_vec();
    let video = Video { footage: Footage::Frames(frames), options: VideoOptions::default() };
    let message = refusal(&media(MediaLimits::default()), Medium::Video(video)).await;
    assert!(message.starts_with("frame 3 of the video has 96x64 pixels and the first has 64x64"), "{message}");
}

/// Every file with bytes changed here and there: whatever the decoders do, the request ends in a clip or in words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_never_takes_more_than_its_own_request_down() {
    let limits = MediaLimits { max_image_pixels: 100_000, max_image_tokens: 400, ..MediaLimits::default() };
    let media = media(MediaLimits { ffmpeg: ffmpeg(), video_timeout: Duration::from_secs(5), ..limits });
    let mut names: Vec<String> = rows("files").iter().map(|row| row["file"].as_str().unwrap().to_owned()).collect();
    names.dedup();
    for name in names {
        let whole = file(&name);
        let rounds = if name.starts_with("animated") { 40 } else { 2 };
        for round in 0..rounds {
            let mut damaged = whole.clone();
            for change in 0..1 + round % 4 {
                let reach = if round % 2 == 0 { whole.len().min(256) } else { whole.len() };
                damaged[(round * 7919 + change * 104_729) % reach] ^= 1 << ((round + change) % 8);
            }
            match clip_of(&media, video(damaged, VideoOptions::default())).await {
                Ok(_) | Err(Error::Invalid { .. }) => {}
                Err(other) => panic!("{name}, round {round}: {other:?}"),
            }
        }
    }
}
