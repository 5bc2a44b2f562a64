//! The flags that every engine gets, and for whom they are evaluated.

/// For whom all flags are evaluated: on the plan `pro`, in `de`, with 12 seats, so that every rule matches.
pub const USER: &str = "0198c2a4-7a3e-7c11-b1a5-5d4f3c2b1a09";

/// A boolean flag.
pub struct Definition {
    /// Its name, unique.
    pub name: String,
    /// What decides it.
    pub layer: Layer,
}

/// What decides a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// On for everybody.
    Default,
    /// On for half of the users, by their id.
    Split,
    /// Off; on for plan in [pro, team], country in [de, at, ch] and seats at least 10.
    Rule,
}

/// A hundred flags, a third for each layer.
pub fn hundred() -> Vec<Definition> {
    let layers = [Layer::Default, Layer::Split, Layer::Rule];
    (0..100).map(|n| Definition { name: format!("area{}.flag{n}", n % 7), layer: layers[n % 3] }).collect()
}
