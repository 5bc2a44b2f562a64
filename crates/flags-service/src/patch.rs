//! Helper for partial updates (`PATCH`).

/// Overwrites `field` if the patch contains a value for it.
pub(crate) fn assign<T>(field: &mut T, patched: Option<T>) {
    if let Some(value) = patched {
        *field = value;
    }
}
