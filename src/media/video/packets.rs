//! What ffmpeg's `framecrc` tells of a video's packets: how many frames there are, and when they are shown.

use super::sampling::Timing;

/// Reads the listing line by line, so that none of it is kept.
#[derive(Debug, Default)]
pub(super) struct Packets {
    num_frames: usize,
    /// Seconds a tick has: (numerator, denominator).
    time_base: Option<(f64, f64)>,
    /// The first tick and the one after the last.
    span: Option<(i64, i64)>,
}

impl Packets {
    /// Reads a line: `#tb 0: 1/12800`, another comment, or `stream, dts, pts, duration, size, crc` with flags where a packet is
    /// no key frame.
    pub(super) fn push(&mut self, line: &str) {
        if let Some(time_base) = line.strip_prefix("#tb 0:") {
            let (numerator, denominator) = time_base.trim().split_once('/').unwrap_or_default();
            self.time_base = numerator.parse().ok().zip(denominator.parse().ok());
        }
        if line.starts_with('#') {
            return;
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let number = |field: usize| fields.get(field).and_then(|field| field.parse::<i64>().ok());
        let (Some(pts), Some(duration)) = (number(2), number(3)) else { return };
        if is_discarded(&fields) {
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
                let at = |tick: i64| tick as f64 * numerator / denominator;
                at(end) - at(first)
            }
            _ => 0.0,
        };
        let fps = (seconds > 0.0).then(|| self.num_frames as f64 / seconds);
        Timing { num_frames: self.num_frames, fps, seconds }
    }
}

/// Whether an edit list cuts the packet out of the video: it is decoded for those after it and not shown.
fn is_discarded(fields: &[&str]) -> bool {
    const DISCARD: u32 = 4;
    let flags = fields.iter().find_map(|field| field.strip_prefix("F=0x"));
    flags.and_then(|flags| u32::from_str_radix(flags, 16).ok()).is_some_and(|flags| flags & DISCARD != 0)
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
    fn a_file_that_tells_no_times_has_no_rate() {
        let listing = format!("#tb 0: 1/25\n0, 0, {}, 0, 9, 0x1\n", i64::MIN);
        assert_eq!(timing(&listing), Timing { num_frames: 1, fps: None, seconds: 0.0 });
        assert_eq!(timing(""), Timing { num_frames: 0, fps: None, seconds: 0.0 });
    }
}
