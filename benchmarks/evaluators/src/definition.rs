//! Flag definitions and the user, shared by all engines.

/// Id of the user of all evaluations. The user has the plan `pro`, the country `de` and 12 seats, so every rule
/// matches.
pub const USER: &str = "0198c2a4-7a3e-7c11-b1a5-5d4f3c2b1a09";

/// Definition of a boolean flag, independent of the engine.
pub struct Definition {
    /// Unique name.
    pub name: String,
    /// Layer that decides the result.
    pub layer: Layer,
}

/// Layer that decides the result of a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// On for all users.
    Default,
    /// On for half of the users, by a percentage split on the user id.
    Split,
    /// Off, except for users with plan in [pro, team], country in [de, at, ch] and at least 10 seats.
    Rule,
}

/// Returns a hundred flags, a third of them for each layer.
pub fn hundred_definitions() -> Vec<Definition> {
    let layers = [Layer::Default, Layer::Split, Layer::Rule];
    (0..100).map(|n| Definition { name: format!("area{}.flag{n}", n % 7), layer: layers[n % 3] }).collect()
}
