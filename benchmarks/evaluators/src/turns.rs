//! Measuring by turns: in each round everybody runs once, so that noise hits all alike.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// How long one turn takes, about.
const TURN: Duration = Duration::from_micros(200);

/// Something to be measured.
pub struct Contender {
    /// Its name.
    pub name: String,
    repeat: Box<dyn Fn(u32)>,
}

impl Contender {
    /// Measures `work`, whose result counts as used.
    pub fn new<T>(name: &str, work: impl Fn() -> T + 'static) -> Self {
        let repeat = move |times| {
            for _ in 0..times {
                black_box(work());
            }
        };
        Self { name: name.to_owned(), repeat: Box::new(repeat) }
    }

    /// Does the work so many times.
    pub fn repeat(&self, times: u32) {
        (self.repeat)(times);
    }

    fn time(&self, times: u32) -> Duration {
        let start = Instant::now();
        self.repeat(times);
        start.elapsed()
    }

    /// How many times fill a turn.
    fn calibrate(&self) -> u32 {
        let mut times = 1;
        while self.time(times) < TURN {
            times *= 2;
        }
        times
    }
}

/// What one contender took.
pub struct Figure {
    /// Nanoseconds of the work done once, median of the rounds.
    pub nanoseconds: f64,
    /// The first contender being 1: lower quartile, median and upper quartile of the ratio within each round.
    pub ratio: [f64; 3],
}

/// Lets all contenders run in turns, for so many rounds, each round begun by another one.
pub fn measure(contenders: &[Contender], rounds: usize) -> Vec<Figure> {
    let times: Vec<_> = contenders.iter().map(Contender::calibrate).collect();
    let mut taken = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let who = (round + turn) % contenders.len();
            let nanoseconds = contenders[who].time(times[who]).as_nanos() as f64;
            taken[who].push(nanoseconds / f64::from(times[who]));
        }
    }
    let figure = |mine: &Vec<f64>| {
        let ratios = sorted(mine.iter().zip(&taken[0]).map(|(mine, first)| mine / first));
        Figure {
            nanoseconds: quantile(&sorted(mine.iter().copied()), 0.5),
            ratio: [0.25, 0.5, 0.75].map(|share| quantile(&ratios, share)),
        }
    };
    taken.iter().map(figure).collect()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[(sorted.len() as f64 * share) as usize]
}
