//! Allocations: how many, and of how many bytes, each engine makes for a hundred flags.

use evaluators::{all, hundred, version_of};

fn main() {
    println!("Allocations for 100 flags, counted by the allocator.\n");
    println!("| engine | version | allocations | bytes |");
    println!("|---|---|---|---|");
    for engine in all(&hundred()) {
        // What is filled at the first use alone does not count.
        engine.repeat(2);
        let info = allocation_counter::measure(|| engine.repeat(1));
        let package = engine.name.split(',').next().unwrap_or_default();
        println!("| {} | {} | {} | {} |", engine.name, version_of(package), info.count_total, info.bytes_total);
    }
}
