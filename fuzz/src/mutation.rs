//! [`Mutator`]: makes inputs of a corpus.

/// Inputs don't grow beyond this: what breaks a parser is rarely long.
const LONGEST: usize = 8 * 1024;

/// How many of its own inputs it goes on with.
const POPULATION: usize = 256;

/// Bytes that mean something to one parser or another.
const TELLING: &[u8] = b"$?;:'\"`\\/*-#\n\r\t {}[]&!|>%@,.=_0129aHMSmunE\0\x7f\x80\xc3\xff";

/// An endless stream of inputs, the same for the same seed.
pub(crate) struct Mutator {
    state: u64,
    corpus: &'static [&'static [u8]],
    made: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, corpus: &'static [&'static [u8]]) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, corpus, made: Vec::new() }
    }

    pub(crate) fn make(&mut self) -> Vec<u8> {
        let mut input = self.parent();
        for _ in 0..=self.below(6) {
            self.mutate(&mut input);
        }
        input.truncate(LONGEST);
        if self.made.len() < POPULATION {
            self.made.push(input.clone());
        } else {
            let place = self.below(POPULATION);
            self.made[place].clone_from(&input);
        }
        input
    }

    /// Mostly an input of the corpus: what has been mutated for long is noise.
    fn parent(&mut self) -> Vec<u8> {
        if self.made.is_empty() || self.below(4) > 0 {
            let place = self.below(self.corpus.len());
            return self.corpus[place].to_vec();
        }
        let place = self.below(self.made.len());
        self.made[place].clone()
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let piece = at..at + self.below(input.len() - at + 1);
        match self.below(8) {
            0 => input.insert(at, TELLING[self.below(TELLING.len())]),
            1 => input.insert(at, self.random() as u8),
            2 if at < input.len() => input[at] ^= 1 << self.below(8),
            3 if at < input.len() => input[at] = TELLING[self.below(TELLING.len())],
            4 => drop(input.drain(piece)),
            5 => {
                // The same piece many times: nesting, long numbers, long names.
                let piece = input[piece].to_vec();
                let times = (1 << self.below(10)).min(LONGEST / piece.len().max(1));
                input.splice(at..at, piece.repeat(times));
            }
            6 => {
                let other = self.parent();
                let from = self.below(other.len() + 1);
                input.splice(at..at, other[from..].iter().copied());
            }
            _ => input.truncate(at),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random() % limit.max(1) as u64) as usize
    }

    /// xorshift64*: fast, and the same everywhere.
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
