//! Counts the allocations of each engine, and their total size, for one evaluation of a hundred flags.

use evaluators::{all_engines, hundred_definitions, version_of};

fn main() {
    println!("Allocations for 100 flags, counted by the allocator.\n");
    println!("| engine | version | allocations | bytes |");
    println!("|---|---|---|---|");
    for engine in all_engines(&hundred_definitions()) {
        // Two runs before the measurement fill the caches that engines create on first use.
        engine.repeat(2);
        let info = allocation_counter::measure(|| engine.repeat(1));
        let package = engine.name.split(',').next().unwrap_or_default();
        println!("| {} | {} | {} | {} |", engine.name, version_of(package), info.count_total, info.bytes_total);
    }
}
