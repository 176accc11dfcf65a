use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are counted apart; beyond them strangers share one count.
const ADDRESSES: usize = 4096;

/// Counts wrong tries: so many at once, and then one after each pause. A try is counted before it is judged, and given
/// back where it was right, so that tries side by side gain nothing.
pub(crate) struct Limiter {
    of_one: Bucket,
    of_all: Option<Bucket>,
    state: Mutex<State>,
}

/// How many tries at once, and how long until one more.
#[derive(Clone, Copy)]
pub(crate) struct Bucket {
    pub(crate) tries: u32,
    pub(crate) pause: Duration,
}

#[derive(Default)]
struct State {
    addresses: HashMap<IpAddr, Level>,
    others: Level,
    all: Level,
}

/// Tries that count now, and since when.
#[derive(Clone, Copy, Default)]
struct Level {
    tries: f64,
    at: Option<Instant>,
}

impl Level {
    fn settle(&mut self, bucket: Bucket, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.tries = (self.tries - passed.as_secs_f64() / bucket.pause.as_secs_f64()).max(0.0);
        self.at = Some(now);
    }

    /// How long until one more try is allowed.
    fn wait(&self, bucket: Bucket) -> Option<Duration> {
        let over = self.tries + 1.0 - f64::from(bucket.tries);
        (over > 1e-9).then(|| bucket.pause.mul_f64(over))
    }
}

impl Limiter {
    pub(crate) fn new(of_one: Bucket, of_all: Option<Bucket>) -> Self {
        Self { of_one, of_all, state: Mutex::default() }
    }

    /// Counts a try from an address, or says how long to wait.
    pub(crate) fn enter(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_all) = self.of_all {
            state.all.settle(of_all, now);
            if let Some(wait) = state.all.wait(of_all) {
                return Err(wait);
            }
        }
        let level = level(&mut state, self.of_one, from, now);
        level.settle(self.of_one, now);
        if let Some(wait) = level.wait(self.of_one) {
            return Err(wait);
        }
        level.tries += 1.0;
        state.all.tries += 1.0;
        Ok(())
    }

    /// Gives back a try that was right.
    pub(crate) fn was_right(&self, from: IpAddr, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let level = level(&mut state, self.of_one, from, now);
        level.tries = (level.tries - 1.0).max(0.0);
        state.all.tries = (state.all.tries - 1.0).max(0.0);
    }
}

fn level(state: &mut State, bucket: Bucket, from: IpAddr, now: Instant) -> &mut Level {
    let from = network(from);
    if state.addresses.len() >= ADDRESSES && !state.addresses.contains_key(&from) {
        for level in state.addresses.values_mut() {
            level.settle(bucket, now);
        }
        state.addresses.retain(|_, level| level.tries > 0.0);
        if state.addresses.len() >= ADDRESSES {
            return &mut state.others;
        }
    }
    state.addresses.entry(from).or_default()
}

/// One machine has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const ONE: Bucket = Bucket { tries: 5, pause: Duration::from_secs(12) };

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn five_wrong_tries_a_minute_and_right_ones_are_free() {
        let (limiter, begin) = (Limiter::new(ONE, None), Instant::now());
        for _ in 0..100 {
            limiter.enter(address(1), begin).unwrap();
            limiter.was_right(address(1), begin);
        }
        for _ in 0..5 {
            limiter.enter(address(1), begin).unwrap();
        }
        let wait = limiter.enter(address(1), begin).unwrap_err();
        assert!(wait > Duration::from_secs(11) && wait <= Duration::from_secs(12), "{wait:?}");
        limiter.enter(address(2), begin).unwrap();
        let mut entered = 0;
        for second in 1..=600 {
            entered += u32::from(limiter.enter(address(1), begin + Duration::from_secs(second)).is_ok());
        }
        assert!((49..=51).contains(&entered), "{entered}");
    }

    #[test]
    fn many_addresses_share_the_count_of_all_and_one_network_is_one() {
        let of_all = Bucket { tries: 20, pause: Duration::from_secs(3) };
        let (limiter, begin) = (Limiter::new(ONE, Some(of_all)), Instant::now());
        let entered = (0..1000).filter(|number| limiter.enter(address(*number), begin).is_ok()).count();
        assert_eq!(entered, 20);

        let limiter = Limiter::new(ONE, None);
        let own = |host: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | host));
        assert_eq!((0..50).filter(|host| limiter.enter(own(*host), begin).is_ok()).count(), 5);
        let mapped: IpAddr = "::ffff:0.0.0.9".parse().unwrap();
        assert_eq!((0..9).filter(|_| limiter.enter(mapped, begin).is_ok()).count(), 5);
        assert!(limiter.enter(address(9), begin).is_err());
    }

    #[test]
    fn its_memory_is_bounded_and_forgets_nobody_who_still_counts() {
        let (limiter, begin) = (Limiter::new(ONE, None), Instant::now());
        for number in 0..10 * ADDRESSES as u32 {
            let _ = limiter.enter(address(number), begin);
        }
        assert_eq!(limiter.state.lock().unwrap().addresses.len(), ADDRESSES);
        for _ in 0..4 {
            limiter.enter(address(0), begin).unwrap();
        }
        assert!(limiter.enter(address(0), begin).is_err());
        limiter.enter(address(u32::MAX), begin + Duration::from_secs(60)).unwrap();
        assert!(limiter.state.lock().unwrap().addresses.len() < 10);
    }
}
