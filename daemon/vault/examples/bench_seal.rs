//! Sealing and opening beside ring's own AES-256-GCM on a buffer of the same bytes, in turns, in one run; medians
//! count. "In place" leaves the bytes in the buffer, as ring does; "stream" copies them through `Write` and `Read`,
//! from memory to memory, where ring copies nothing. Prints objects for `scripts/bench`.
//!
//! usage: bench_seal [--quick]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement stops where it cannot go on, and prints"
)]

use std::io::{Read, Write, sink};
use std::time::Instant;

use moat_vault::{DataKey, OpenReader, SealWriter, open_in_place, sealed_length};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const OBJECT: &str = "bench";

fn seconds(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (bytes, rounds) = if quick { (16 << 20, 3) } else { (256 << 20, 9) };
    let plain: Vec<u8> = (0..bytes).map(|index: usize| ((index * 31) >> 7) as u8).collect();
    let key = DataKey::random().unwrap();
    let ring = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut buffer = vec![0; sealed_length(bytes as u64) as usize];
    let mut opened = vec![0; bytes];
    let mut sealed = Vec::with_capacity(buffer.len());
    let mut times: [Vec<f64>; 6] = Default::default();
    // The first round touches every page, and does not count.
    for round in 0..=rounds {
        let work = &mut buffer[..bytes];
        work.copy_from_slice(&plain);
        let mut tag = None;
        let ring_seals = seconds(|| {
            tag = Some(ring.seal_in_place_separate_tag(nonce(), Aad::empty(), work).unwrap());
        });
        let tag = tag.unwrap();
        let ring_opens = seconds(|| {
            ring.open_in_place_separate_tag(nonce(), Aad::empty(), tag, work, 0..).unwrap();
        });
        assert!(*work == plain);

        let seals_in_place = seconds(|| {
            let mut writer = SealWriter::new(sink(), &key, OBJECT).unwrap();
            writer.write_in_place(work).unwrap();
            writer.finish().unwrap();
        });
        sealed.clear();
        let seals_stream = seconds(|| {
            let mut writer = SealWriter::new(&mut sealed, &key, OBJECT).unwrap();
            writer.write_all(&plain).unwrap();
            writer.finish().unwrap();
        });
        let opens_stream = seconds(|| {
            let mut reader = OpenReader::new(sealed.as_slice(), &key, OBJECT).unwrap();
            reader.read_exact(&mut opened).unwrap();
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        });
        assert!(opened == plain);
        buffer.copy_from_slice(&sealed);
        let opens_in_place = seconds(|| {
            open_in_place(&key, OBJECT, &mut buffer).unwrap();
        });
        assert!(buffer[..bytes] == plain);
        let found = [ring_seals, ring_opens, seals_in_place, seals_stream, opens_stream, opens_in_place];
        if round > 0 {
            times.iter_mut().zip(found).for_each(|(times, time)| times.push(time));
        }
    }
    let [ring_seals, ring_opens, seals_in_place, seals_stream, opens_stream, opens_in_place] =
        times.map(|mut times| bytes as f64 / 1e9 / median(&mut times));
    for (run, ours, peer) in [
        ("sealing in place", seals_in_place, ring_seals),
        ("opening in place", opens_in_place, ring_opens),
        ("sealing a stream", seals_stream, ring_seals),
        ("opening a stream", opens_stream, ring_opens),
    ] {
        println!("{{\"stage\": \"{run}\", \"gb_per_s\": {ours:.3}}}");
        println!("{{\"stage\": \"{run}\", \"gb_per_s\": {peer:.3}, \"peer\": \"ring\"}}");
    }
}
