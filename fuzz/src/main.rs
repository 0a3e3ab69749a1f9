//! Feeds random and mutated input to the parsers that read what others wrote: the placeholder lexer, the headers with a
//! caller's deadline, the settings loader.
//!
//! `mainstay-fuzz <seconds per target> [seed]`. It needs nothing but a stable compiler, and in exchange it is blind: it
//! mutates a corpus and what it has made of it, and doesn't see which branches that reaches. The first input that
//! breaks a promise is printed, with the seed, and ends it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use self::mutation::Mutator;
use self::targets::{TARGETS, Target};

mod mutation;
mod targets;

fn main() -> ExitCode {
    let numbers: Option<Vec<u64>> = std::env::args().skip(1).map(|argument| argument.parse().ok()).collect();
    let (seconds, seed) = match numbers.as_deref() {
        Some([seconds]) => (*seconds, 1),
        Some([seconds, seed]) => (*seconds, *seed),
        _ => {
            eprintln!("usage: mainstay-fuzz <seconds per target> [seed]");
            return ExitCode::from(2);
        }
    };
    for target in &TARGETS {
        match run(target, seed, |_, elapsed| elapsed < Duration::from_secs(seconds)) {
            Ok(rounds) => println!("{}: {rounds} inputs, seed {seed}: nothing found", target.name),
            Err(input) => {
                eprintln!("{}, seed {seed}, breaks on {:?}", target.name, String::from_utf8_lossy(&input));
                eprintln!("as bytes: {input:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Feeds `target` until `go_on` says no, by the number of inputs and the time; an `Err` is the input that broke it.
fn run(target: &Target, seed: u64, go_on: impl Fn(u64, Duration) -> bool) -> Result<u64, Vec<u8>> {
    let mut mutator = Mutator::new(seed, target.corpus);
    let (began, mut rounds) = (Instant::now(), 0);
    while go_on(rounds, began.elapsed()) {
        let input = mutator.make();
        if catch_unwind(|| (target.check)(&input)).is_err() {
            return Err(input);
        }
        rounds += 1;
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_finds_nothing() {
        for target in &TARGETS {
            if let Err(input) = run(target, 1, |rounds, _| rounds < 2_000) {
                panic!("{} breaks on {:?}, as bytes {input:?}", target.name, String::from_utf8_lossy(&input));
            }
        }
    }

    #[test]
    fn a_target_that_breaks_is_found_with_its_input() {
        let check = |input: &[u8]| assert!(!input.windows(2).any(|pair| pair == b"$$"));
        let broken = Target { name: "broken", corpus: &[b"a$b"], check };
        let input = run(&broken, 1, |rounds, _| rounds < 100_000).unwrap_err();
        assert!(input.windows(2).any(|pair| pair == b"$$"));
    }
}
