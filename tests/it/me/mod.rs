//! A user's own flags: `/api/flags/me`.

mod own_flags;
