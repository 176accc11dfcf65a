//! Sealing and opening a buffer beside ring's own AES-256-GCM on the same buffer, in turns, in one run; medians count.
//! Prints one object a line for `scripts/bench`. usage: bench_seal [--quick]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement stops where it cannot go on, and prints"
)]

use std::io::{Read, Write};
use std::time::Instant;

use moat_vault::{DataKey, OpenReader, SealWriter, sealed_length};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

fn seconds(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let (bytes, rounds) =
        if std::env::args().any(|argument| argument == "--quick") { (16 << 20, 3) } else { (256 << 20, 9) };
    let plain: Vec<u8> = (0..bytes).map(|index: usize| (index * 31 >> 7) as u8).collect();
    let key = DataKey::random().unwrap();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut buffer = plain.clone();
    let mut opened = vec![0; bytes];
    let mut sealed = Vec::with_capacity(sealed_length(bytes as u64) as usize);
    let mut times: [Vec<f64>; 4] = Default::default();
    // One round to touch every page; it does not count.
    for round in 0..=rounds {
        let mut tag = None;
        let peer_seal = seconds(|| {
            tag = Some(cipher.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut buffer).unwrap())
        });
        let tag = tag.unwrap();
        let peer_open = seconds(|| {
            cipher.open_in_place_separate_tag(nonce(), Aad::empty(), tag, &mut buffer, 0..).unwrap();
        });
        assert!(buffer == plain);

        sealed.clear();
        let our_seal = seconds(|| {
            let mut writer = SealWriter::new(&mut sealed, &key, "bench").unwrap();
            writer.write_all(&plain).unwrap();
            writer.finish().unwrap();
        });
        let our_open = seconds(|| {
            let mut reader = OpenReader::new(sealed.as_slice(), &key, "bench").unwrap();
            reader.read_exact(&mut opened).unwrap();
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        });
        assert!(opened == plain);
        if round > 0 {
            for (times, time) in times.iter_mut().zip([our_seal, peer_seal, our_open, peer_open]) {
                times.push(time);
            }
        }
    }
    let speed = |times: &Vec<f64>| bytes as f64 / 1e9 / median(times.clone());
    for (name, ours, peer) in [("sealing", &times[0], &times[1]), ("opening", &times[2], &times[3])] {
        let (ours, peer) = (speed(ours), speed(peer));
        println!("{{\"side\": \"ours\", \"run\": \"{name}\", \"gb_per_s\": {ours:.4}}}");
        println!("{{\"peer\": \"ring\", \"run\": \"{name}\", \"gb_per_s\": {peer:.4}}}");
    }
}
