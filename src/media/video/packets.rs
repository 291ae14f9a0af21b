//! What ffmpeg's `framecrc` tells of a video's packets: how many frames there are, and when they are shown.

use super::places::{Inside, Places};
use super::sampling::Timing;

/// Codecs of which each packet becomes one frame, that of its time: what begins inside can be found by its time.
const ONE_FRAME_A_PACKET: [&str; 4] = ["h264", "hevc", "vp9", "av1"];

/// Reads the listing line by line, so that little of it is kept.
#[derive(Debug, Default)]
pub(super) struct Packets {
    num_frames: usize,
    /// Seconds a tick has: (numerator, denominator).
    time_base: Option<(i64, i64)>,
    codec: String,
    /// The first tick and the one after the last.
    span: Option<(i64, i64)>,
    places: Places,
}

/// Frames inside a video, in ticks of a time base (numerator, denominator) of a second.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) time_base: (i64, i64),
    pub(super) frames: Inside,
}

impl Entry {
    /// Seconds to the frame that decoding begins with, or a microsecond after it.
    pub(super) fn seconds(&self) -> f64 {
        let (numerator, denominator) = self.time_base;
        (self.frames.entry as f64 * numerator as f64 / denominator as f64 * 1e6).ceil() / 1e6
    }
}

impl Packets {
    /// Reads a line: `#tb 0: 1/12800`, another comment, or `stream, dts, pts, duration, size, crc` with flags where a packet is
    /// no key frame.
    pub(super) fn push(&mut self, line: &str) {
        if let Some(time_base) = line.strip_prefix("#tb 0:") {
            let (numerator, denominator) = time_base.trim().split_once('/').unwrap_or_default();
            self.time_base = numerator.parse().ok().zip(denominator.parse().ok());
        }
        if let Some(codec) = line.strip_prefix("#codec_id 0:") {
            self.codec = codec.trim().to_owned();
        }
        if line.starts_with('#') {
            return;
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let number = |field: usize| fields.get(field).and_then(|field| field.parse::<i64>().ok());
        let (Some(pts), Some(duration)) = (number(2), number(3)) else { return };
        let flags = flags(&fields);
        let is_shown = flags & DISCARD == 0;
        self.places.push((pts != i64::MIN).then_some(pts), flags & KEY != 0, is_shown);
        if !is_shown {
            return;
        }
        self.num_frames += 1;
        if pts != i64::MIN {
            let (first, end) = self.span.unwrap_or((pts, pts));
            self.span = Some((first.min(pts), end.max(pts.saturating_add(duration))));
        }
    }

    pub(super) fn num_frames(&self) -> usize {
        self.num_frames
    }

    /// As torchcodec counts, which Transformers decodes with: frames over the time from the first frame's beginning to the
    /// last one's end.
    pub(super) fn timing(&self) -> Timing {
        let seconds = match (self.time_base, self.span) {
            (Some((numerator, denominator)), Some((first, end))) => {
                let at = |tick: i64| tick as f64 * numerator as f64 / denominator as f64;
                at(end) - at(first)
            }
            _ => 0.0,
        };
        let fps = (seconds > 0.0).then(|| self.num_frames as f64 / seconds);
        Timing { num_frames: self.num_frames, fps, seconds }
    }

    /// How to decode the frames at `indices`, which ascend, without most of what is before them; `None` where only decoding all
    /// of it finds them.
    pub(super) fn entry(&mut self, indices: &[usize]) -> Option<Entry> {
        let time_base = self.time_base.filter(|_| ONE_FRAME_A_PACKET.contains(&self.codec.as_str()))?;
        self.places.sort();
        Some(Entry { time_base, frames: self.places.inside(indices)? })
    }
}

/// Decoding can begin with the packet.
const KEY: u32 = 1;

/// An edit list cuts the packet out of the video: it is decoded for those after it and not shown.
const DISCARD: u32 = 4;

/// A packet's flags, which are told where they are not just [`KEY`].
fn flags(fields: &[&str]) -> u32 {
    let told = fields.iter().find_map(|field| field.strip_prefix("F=0x"));
    told.map_or(KEY, |flags| u32::from_str_radix(flags, 16).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{Packets, Timing};

    fn timing(listing: &str) -> Timing {
        let mut packets = Packets::default();
        listing.lines().for_each(|line| packets.push(line));
        packets.timing()
    }

    #[test]
    fn frames_are_counted_and_timed_in_whatever_order_they_are_stored() {
        let listing = "#software: Lavf\n#tb 0: 1/12800\n#media_type 0: video\n\
                       0, -2048, 1024, 1024, 900, 0x1, S=1\n0, -1024, 3072, 1024, 9, 0x2, F=0x0\n\
                       0, 0, 2048, 1024, 9, 0x3, F=0x0\n0, 1024, 0, 1024, 9, 0x3, F=0x5\n";
        assert_eq!(timing(listing), Timing { num_frames: 3, fps: Some(12.5), seconds: 0.24 });
    }

    #[test]
    fn what_lies_deep_in_a_video_is_found_by_its_time() {
        let listing = |codec: &str| {
            let packets = (0..40).map(|frame| {
                let flags = if frame % 10 == 0 { "" } else { ", F=0x0" };
                format!("0, {frame}, {frame}, 1, 9, 0x1{flags}")
            });
            let lines: Vec<String> =
                ["#tb 0: 1/3".to_owned(), format!("#codec_id 0: {codec}")].into_iter().chain(packets).collect();
            let mut packets = Packets::default();
            lines.iter().for_each(|line| packets.push(line));
            packets
        };
        let entry = listing("h264").entry(&[25, 39]).unwrap();
        assert_eq!((entry.frames.entry, &entry.frames.wanted[..]), (10, &[25, 39][..]));
        assert_eq!(entry.seconds(), 3.333334);
        assert_eq!(listing("h264").entry(&[15]), None);
        assert_eq!(listing("vp8").entry(&[25]), None);
    }

    #[test]
    fn a_file_that_tells_no_times_has_no_rate() {
        let listing = format!("#tb 0: 1/25\n0, 0, {}, 0, 9, 0x1\n", i64::MIN);
        assert_eq!(timing(&listing), Timing { num_frames: 1, fps: None, seconds: 0.0 });
        assert_eq!(timing(""), Timing { num_frames: 0, fps: None, seconds: 0.0 });
    }
}
