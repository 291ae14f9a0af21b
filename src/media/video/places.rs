//! Where to begin to decode for a frame that lies deep in a video, so that what is before it is not decoded.

/// Most frames that are remembered, 16 MiB of them; whatever is in a video with more is decoded from its beginning.
const MOST: usize = 1 << 20;

/// When the frames of a video are shown, in ticks, and which of them decoding can begin with.
#[derive(Debug, Default)]
pub(super) struct Places {
    shown: Vec<i64>,
    keys: Vec<i64>,
    is_unknown: bool,
}

/// Frames named by the ticks at which they are shown, for a decoder that begins inside the video.
#[derive(Debug, PartialEq)]
pub(super) struct Inside {
    /// The frame that decoding begins with, or with one before it.
    pub(super) entry: i64,
    pub(super) wanted: Vec<i64>,
}

impl Places {
    /// Takes the next packet, in the order of the file. One that is not shown is decoded for those after it.
    pub(super) fn push(&mut self, tick: Option<i64>, is_key: bool, is_shown: bool) {
        let Some(tick) = tick.filter(|_| self.shown.len() + self.keys.len() < MOST) else {
            self.is_unknown = true;
            return;
        };
        if is_shown {
            self.shown.push(tick);
        }
        if is_key {
            self.keys.push(tick);
        }
    }

    /// In the order in which they are shown.
    pub(super) fn sort(&mut self) {
        self.shown.sort_unstable();
        self.keys.sort_unstable();
        // Two frames at a tick cannot be told apart by it.
        self.is_unknown |= self.shown.windows(2).any(|pair| pair[0] == pair[1]);
    }

    /// The frames at `indices`, which ascend; `None` where decoding has to begin with the first.
    ///
    /// It begins one key frame before the last that would do: what some encoders call a key frame only begins to refresh the
    /// picture, and has done so by the next.
    pub(super) fn inside(&self, indices: &[usize]) -> Option<Inside> {
        if self.is_unknown {
            return None;
        }
        let wanted: Vec<i64> = indices.iter().map(|index| self.shown.get(*index).copied()).collect::<Option<_>>()?;
        let num_before = self.keys.partition_point(|key| key <= wanted.first().unwrap_or(&i64::MIN));
        let entry = num_before.checked_sub(2).filter(|entry| *entry > 0)?;
        Some(Inside { entry: self.keys[entry], wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::{Inside, Places};

    /// Ten frames of ten ticks, of which every third is a key frame.
    fn places() -> Places {
        let mut places = Places::default();
        for frame in 0..10 {
            places.push(Some(10 * frame), frame % 3 == 0, true);
        }
        places.sort();
        places
    }

    #[test]
    fn decoding_begins_one_key_frame_early_or_with_the_first() {
        let places = places();
        assert_eq!(places.inside(&[6, 9]), Some(Inside { entry: 30, wanted: vec![60, 90] }));
        assert_eq!(places.inside(&[9]), Some(Inside { entry: 60, wanted: vec![90] }));
        assert_eq!(places.inside(&[5]), None, "the key frame before the last is the first");
        assert_eq!(places.inside(&[0]), None);
        assert_eq!(places.inside(&[10]), None, "there is no such frame");
    }

    #[test]
    fn what_is_not_shown_has_no_index() {
        let mut places = Places::default();
        for (tick, is_key, is_shown) in [(0, true, false), (10, true, true), (30, true, true), (20, false, true)] {
            places.push(Some(tick), is_key, is_shown);
        }
        places.sort();
        assert_eq!(places.inside(&[2]), Some(Inside { entry: 10, wanted: vec![30] }));
        assert_eq!(places.inside(&[1]), None);
    }

    #[test]
    fn frames_without_a_time_of_their_own_are_counted_from_the_beginning() {
        let (mut untimed, mut twice) = (places(), places());
        untimed.push(None, false, true);
        twice.push(Some(90), false, true);
        for mut places in [untimed, twice] {
            places.sort();
            assert_eq!(places.inside(&[9]), None);
        }
    }
}
