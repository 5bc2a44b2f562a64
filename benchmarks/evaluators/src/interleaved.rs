//! Interleaved measurements: every candidate runs once per round, so that noise affects all of them equally.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Approximate duration of one sample. Short enough to alternate often, long enough for the clock resolution.
const SAMPLE_DURATION: Duration = Duration::from_micros(200);

/// Work to measure.
pub struct Candidate {
    /// Name in the output.
    pub name: String,
    repeat: Box<dyn Fn(u32)>,
}

impl Candidate {
    /// Creates a candidate. The result of `work` is passed to [`black_box`], so the compiler does not optimize it away.
    pub fn new<T>(name: &str, work: impl Fn() -> T + 'static) -> Self {
        let repeat = move |times| {
            for _ in 0..times {
                black_box(work());
            }
        };
        Self { name: name.to_owned(), repeat: Box::new(repeat) }
    }

    /// Runs the work `times` times.
    pub fn repeat(&self, times: u32) {
        (self.repeat)(times);
    }

    fn time(&self, times: u32) -> Duration {
        let start = Instant::now();
        self.repeat(times);
        start.elapsed()
    }

    /// Returns the number of repetitions that fill one sample.
    fn calibrate(&self) -> u32 {
        let mut times = 1;
        while self.time(times) < SAMPLE_DURATION {
            times *= 2;
        }
        times
    }
}

/// Time per repetition of one candidate.
pub struct Measurement {
    /// Median over all rounds, in nanoseconds.
    pub nanoseconds: f64,
    /// Time relative to the first candidate in the same round: lower quartile, median and upper quartile.
    pub ratio: [f64; 3],
}

/// Measures all candidates in `rounds` rounds. The starting candidate rotates from round to round.
pub fn measure(candidates: &[Candidate], rounds: usize) -> Vec<Measurement> {
    let times: Vec<_> = candidates.iter().map(Candidate::calibrate).collect();
    let mut samples = vec![Vec::with_capacity(rounds); candidates.len()];
    for round in 0..rounds {
        for turn in 0..candidates.len() {
            let index = (round + turn) % candidates.len();
            let nanoseconds = candidates[index].time(times[index]).as_nanos() as f64;
            samples[index].push(nanoseconds / f64::from(times[index]));
        }
    }
    let measurement = |own: &Vec<f64>| {
        let ratios = sorted(own.iter().zip(&samples[0]).map(|(own, first)| own / first));
        Measurement {
            nanoseconds: quantile(&sorted(own.iter().copied()), 0.5),
            ratio: [0.25, 0.5, 0.75].map(|q| quantile(&ratios, q)),
        }
    };
    samples.iter().map(measurement).collect()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[(sorted.len() as f64 * q) as usize]
}
