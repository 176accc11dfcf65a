//! What came and went in the last hour, minute by minute.

use std::collections::VecDeque;
use std::time::Instant;

/// Minutes that are remembered.
const MINUTES: usize = 60;

/// A count by minute.
#[derive(Default)]
pub(crate) struct Pace {
    since: Option<Instant>,
    /// Minutes since then of the last count.
    minute: u64,
    /// Counts, the newest last.
    counts: VecDeque<u64>,
}

impl Pace {
    /// Counts some now.
    pub(crate) fn add(&mut self, number: u64, now: Instant) {
        self.turn(now);
        if let Some(last) = self.counts.back_mut() {
            *last = last.saturating_add(number);
        }
    }

    /// The counts of the minutes that are remembered, the oldest first.
    pub(crate) fn hour(&mut self, now: Instant) -> Vec<u64> {
        self.turn(now);
        let mut hour = vec![0; MINUTES - self.counts.len()];
        hour.extend(&self.counts);
        hour
    }

    /// Begins the minutes that passed.
    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let minute = now.saturating_duration_since(since).as_secs() / 60;
        if self.counts.is_empty() {
            self.counts.push_back(0);
        }
        for _ in 0..minute.saturating_sub(self.minute).min(MINUTES as u64) {
            if self.counts.len() == MINUTES {
                self.counts.pop_front();
            }
            self.counts.push_back(0);
        }
        self.minute = minute;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{MINUTES, Pace};

    #[test]
    fn an_hour_is_remembered_and_no_more() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let minute = |minutes: u32| begin + Duration::from_secs(60) * minutes;
        pace.add(3, begin);
        pace.add(4, minute(1));
        pace.add(1, minute(1));
        let hour = pace.hour(minute(2));
        assert_eq!((hour.len(), &hour[MINUTES - 3..]), (MINUTES, &[3, 5, 0][..]));
        assert_eq!(pace.hour(minute(60))[0], 5);
        assert_eq!(pace.hour(minute(61)).iter().sum::<u64>(), 0);
        pace.add(9, minute(100_000));
        assert_eq!(pace.hour(minute(100_000))[MINUTES - 1], 9);
    }
}
