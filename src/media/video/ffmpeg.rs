//! ffmpeg as a process of its own, which is given one file and little else: a decoder that a hostile file takes over, or
//! that never ends, harms nobody but its own request.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::packets::{Entry, Packets};
use super::ppm;
use crate::error::Error;
use crate::media::Rgb;

/// How ffmpeg says that a file has no video.
const NO_VIDEO: &str = "matches no streams";

/// Where a process finds the file that it is given as its standard input; ffmpeg opens it anew, so that it can seek.
const INPUT: &str = "file:/proc/self/fd/0";

/// Decoders that may run. Each is a way in for a hostile file: those of formats that nobody sends stay shut.
const CODECS: &str =
    "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,libaom-av1,mpeg4,mjpeg,mpeg1video,mpeg2video,h263,prores,png";

/// The ffmpeg that was found when the server started.
#[derive(Debug, Clone)]
pub(super) struct Ffmpeg {
    program: PathBuf,
    /// Pixels of the largest frame that is decoded.
    max_pixels: u64,
    /// Processor time of one process.
    max_cpu: Duration,
}

/// A video's file, in memory that has a file's descriptor: nothing is left of it, however the process ends.
#[derive(Debug)]
pub(super) struct VideoFile {
    file: File,
    demuxer: &'static str,
}

impl VideoFile {
    /// Copies `bytes`, which `demuxer` will read.
    pub(super) fn new(bytes: &[u8], demuxer: &'static str) -> Result<VideoFile, Error> {
        let written = memfd_create("video", MemfdFlags::CLOEXEC).map_err(io::Error::from).and_then(|descriptor| {
            let mut file = File::from(descriptor);
            file.write_all(bytes)?;
            Ok(file)
        });
        let file = written.map_err(|error| internal(&format!("the video could not be handed on: {error}")))?;
        Ok(VideoFile { file, demuxer })
    }
}

impl Ffmpeg {
    /// The ffmpeg at `program`, and its version. Errors, in one line, where there is none that runs, or one before 5.1.
    pub(super) fn find(program: &Path, max_pixels: u64, max_cpu: Duration) -> Result<(Ffmpeg, String), String> {
        let asked = std::process::Command::new(program).arg("-version").env_clear().stdin(Stdio::null()).output();
        let told = asked.map_err(|error| format!("{} does not run: {error}", program.display()))?;
        let first = String::from_utf8_lossy(&told.stdout).lines().next().unwrap_or_default().to_owned();
        let Some(version) = first.strip_prefix("ffmpeg version ") else {
            return Err(format!("{} does not say that it is ffmpeg", program.display()));
        };
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        if is_old(&version) {
            return Err(format!("{} is ffmpeg {version}, and 5.1 or newer is needed", program.display()));
        }
        Ok((Ffmpeg { program: program.to_owned(), max_pixels, max_cpu }, version))
    }

    /// Reads the file's packets without decoding them.
    pub(super) async fn packets(&self, video: &VideoFile) -> Result<Packets, Error> {
        let mut process = self.start(video, &[], &["-c", "copy", "-copyinkf", "-copyts", "-f", "framecrc"])?;
        let mut lines = BufReader::new(&mut process.output).lines();
        let mut packets = Packets::default();
        while let Ok(Some(line)) = lines.next_line().await {
            packets.push(&line);
        }
        if packets.num_frames() == 0 {
            return Err(unreadable(&process.problem().await));
        }
        Ok(packets)
    }

    /// Begins to decode the frames at `indices`, which ascend: at `entry` where there is one, else with the first.
    pub(super) fn frames(&self, video: &VideoFile, indices: &[usize], entry: Option<&Entry>) -> Result<Frames, Error> {
        let select = entry.map_or_else(|| selecting("n", indices), selecting_ticks);
        let seconds = entry.map(|entry| format!("{:.6}", entry.seconds()));
        let seek: &[&str] = match &seconds {
            // The seek is to the frame's own time, and the times of frames stay what they are.
            Some(seconds) => &["-seek_timestamp", "1", "-noaccurate_seek", "-copyts", "-ss", seconds],
            None => &[],
        };
        let num_frames = indices.len().to_string();
        let options = [
            ["-vf", &select],
            ["-fps_mode", "passthrough"],
            ["-frames:v", &num_frames],
            ["-c:v", "ppm"],
            ["-pix_fmt", "rgb24"],
            ["-f", "image2pipe"],
        ];
        let process = self.start(video, seek, options.as_flattened())?;
        Ok(Frames { process, max_pixels: self.max_pixels, num_done: 0, num_frames: indices.len() })
    }

    /// A process that reads `video`, from where `seek` says, and writes what `options` say to its standard output.
    fn start(&self, video: &VideoFile, seek: &[&str], options: &[&str]) -> Result<Process, Error> {
        let stdin = video.file.try_clone().map_err(|error| internal(&error.to_string()))?;
        let mut command = Command::new(&self.program);
        command
            .args(["-nostdin", "-hide_banner", "-loglevel", "error"])
            // Nothing but this file is opened: no other file that it may name, and no network.
            .args(["-protocol_whitelist", "file", "-f", video.demuxer])
            .args(["-threads", "2", "-codec_whitelist", CODECS, "-max_pixels", &self.max_pixels.to_string()])
            .args(seek)
            .args(["-i", INPUT, "-map", "0:V:0"])
            .args(options)
            .arg("pipe:1")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let max_cpu = self.max_cpu;
        // Safety: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || restrict(max_cpu));
        }
        let mut child = command.spawn().map_err(|error| internal(&format!("ffmpeg does not start: {error}")))?;
        let (output, complaints) = (child.stdout.take(), child.stderr.take());
        let (Some(output), Some(complaints)) = (output, complaints) else { unreachable!("both are pipes") };
        Ok(Process { child, output, complaints: tokio::spawn(beginning(complaints)) })
    }
}

/// A filter that lets those frames pass whose `property` is one of `values`.
fn selecting<T: std::fmt::Display>(property: &str, values: &[T]) -> String {
    let places: Vec<String> = values.iter().map(|value| format!("eq({property}\\,{value})")).collect();
    format!("select={}", sum(&places))
}

/// The sum of `terms`, halved again and again: ffmpeg reads no expression with more than a hundred of them in a row.
fn sum(terms: &[String]) -> String {
    match terms {
        [] => "0".to_owned(),
        [term] => term.clone(),
        terms => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({}+{})", sum(left), sum(right))
        }
    }
}

/// A filter that lets the frames of `entry` pass, in whatever time base they come.
fn selecting_ticks(entry: &Entry) -> String {
    let (numerator, denominator) = entry.time_base;
    format!("settb={numerator}/{denominator},{}", selecting("pts", &entry.frames.wanted))
}

/// What a decoder may use, set in the process that becomes one.
fn restrict(max_cpu: Duration) -> io::Result<()> {
    const MEMORY: u64 = 4 << 30;
    let seconds = max_cpu.as_secs() + 1;
    let limits = [
        (Resource::Cpu, seconds),
        (Resource::As, MEMORY),
        (Resource::Fsize, 0), // it writes into a pipe only
        (Resource::Core, 0),
        (Resource::Nofile, 64),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// A decoder that runs. Dropping it ends it.
#[derive(Debug)]
struct Process {
    child: Child,
    output: ChildStdout,
    complaints: JoinHandle<String>,
}

impl Process {
    /// Why it wrote no more, in its own words.
    async fn problem(&mut self) -> String {
        let status = self.child.wait().await;
        let complaints = (&mut self.complaints).await.unwrap_or_default();
        match first_of_weight(&complaints) {
            Some(line) => line.to_owned(),
            None => status.map_or_else(|error| error.to_string(), |status| format!("the decoder ended with {status}")),
        }
    }
}

/// The frames of a video, as they are decoded.
#[derive(Debug)]
pub(super) struct Frames {
    process: Process,
    max_pixels: u64,
    num_done: usize,
    num_frames: usize,
}

impl Frames {
    /// The next frame. Errors where the file is damaged or ends before.
    pub(super) async fn next(&mut self) -> Result<Rgb, Error> {
        match ppm::read(&mut self.process.output, self.max_pixels).await {
            Ok(Some(frame)) => {
                self.num_done += 1;
                Ok(frame)
            }
            Ok(None) => {
                let problem = self.process.problem().await;
                Err(Error::invalid(format!(
                    "the video is damaged, cut short or of a kind that the decoder does not know: {} of the {} frames that \
                     the model was to see could be decoded ({problem}); convert it to H.264 in MP4, or send its frames as pictures",
                    self.num_done, self.num_frames
                )))
            }
            Err(error) => Err(error),
        }
    }
}

/// The beginning of what a process complains about; the rest is read and dropped, so that it never waits for a reader.
async fn beginning(mut complaints: impl AsyncRead + Unpin) -> String {
    const KEPT: usize = 2048;
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(read @ 1..) = complaints.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read.min(KEPT - kept.len())]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The complaint that says the most. That a sound's decoder may not run is none: sounds are left out.
fn first_of_weight(complaints: &str) -> Option<&str> {
    let lines = || {
        let lines = complaints.lines().map(without_address);
        lines.filter(|line| !line.is_empty() && !line.starts_with("Last message repeated"))
    };
    let no_video = lines().find(|line| line.contains(NO_VIDEO));
    no_video.or_else(|| lines().find(|line| !line.contains("not on whitelist"))).or_else(|| lines().next())
}

/// A line without the `[mov @ 0x55d2c8a0]` at its beginning, which says nothing to a client.
fn without_address(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|line| line.split_once("] ")).map_or(line, |(_, rest)| rest);
    rest.strip_prefix(INPUT).map_or(rest, |rest| rest.trim_start_matches(':')).trim()
}

fn unreadable(problem: &str) -> Error {
    if problem.contains(NO_VIDEO) {
        return Error::invalid("the video's file has no video in it, only sound or data; send one that has pictures");
    }
    Error::invalid(format!(
        "the video could not be read: {problem}; if the file is whole, convert it to H.264 in MP4, or send its frames as pictures"
    ))
}

/// A failure that the client did not cause.
fn internal(message: &str) -> Error {
    Error::Generation { message: message.to_owned(), deterministic: false }
}

/// Whether a version is before 5.1, the first with `-fps_mode`. Those named after a commit are taken for new.
fn is_old(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('n').split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    numbers.next().is_some_and(|major| (major, numbers.next().unwrap_or(0)) < (5, 1))
}

#[cfg(test)]
mod tests {
    use super::{first_of_weight, is_old, selecting, without_address};

    #[test]
    fn many_frames_are_selected_by_sums_of_sums() {
        assert_eq!(selecting("n", &[4]), "select=eq(n\\,4)");
        assert_eq!(selecting("n", &[4, 5, 9]), "select=(eq(n\\,4)+(eq(n\\,5)+eq(n\\,9)))");
    }

    #[test]
    fn versions_before_5_1_are_old() {
        for old in ["4.4.2-0ubuntu0.22.04.1", "5.0", "n4.4", "3.4.11"] {
            assert!(is_old(old), "{old}");
        }
        for new in ["5.1.9-0+deb12u1", "7.0.2-static", "9.0", "n6.1", "N-12345-gabcdef", "git-2025-01-01"] {
            assert!(!is_old(new), "{new}");
        }
    }

    #[test]
    fn a_complaint_is_told_without_what_means_nothing_to_a_client() {
        assert_eq!(without_address("[mov,mp4 @ 0x55d2] moov atom not found"), "moov atom not found");
        assert_eq!(without_address("file:/proc/self/fd/0: Invalid data found"), "Invalid data found");
        let sound = "[aac @ 0x5] Codec (aac) not on whitelist 'h264'\n    Last message repeated 1 times\n";
        let no_video = format!("{sound}Stream map '0:V:0' matches no streams.\n");
        assert_eq!(first_of_weight(&no_video), Some("Stream map '0:V:0' matches no streams."));
        assert_eq!(first_of_weight(&format!("{sound}[mov @ 0x5] moov atom not found")), Some("moov atom not found"));
        assert_eq!(first_of_weight(""), None);
    }
}
