//! Patches name the fields they change.

/// Sets a field that a patch names; leaves it as it is otherwise.
pub(crate) fn assign<T>(field: &mut T, named: Option<T>) {
    if let Some(value) = named {
        *field = value;
    }
}
