//! Which flags are listed, and in what order.

use flags_service::flags::FlagDetail;
use flags_store::flags::FlagOrder;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    extract::{Cursor, Limit, foreign_cursor, short_text},
    problem::Problem,
};

/// In what order flags are listed.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) enum FlagSort {
    /// By name.
    #[default]
    #[serde(rename = "name")]
    Name,
    /// Newest change first.
    #[serde(rename = "-updated_at")]
    NewestChange,
}

/// Which flags, and which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FlagQuery {
    /// Any part of name or description, case ignored.
    #[serde(default, deserialize_with = "short_text")]
    #[param(max_length = 255)]
    pub(super) search: Option<String>,
    #[serde(default, deserialize_with = "short_text")]
    #[param(max_length = 255)]
    pub(super) tag: Option<String>,
    /// Archived ones only, or unarchived ones only.
    pub(super) archived: Option<bool>,
    #[serde(default)]
    #[param(inline, value_type = Option<FlagSort>)]
    pub(super) sort: FlagSort,
    /// Most items, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Limit,
    /// `next_cursor` of the part before.
    #[param(value_type = Option<String>)]
    pub(super) cursor: Option<Cursor<FlagPlace>>,
}

/// The place of a flag in either order.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum FlagPlace {
    Name(String),
    Revision(i64, String),
}

impl FlagSort {
    pub(super) fn order(self, after: Option<FlagPlace>) -> Result<FlagOrder, Problem> {
        match (self, after) {
            (Self::Name, None) => Ok(FlagOrder::Name(None)),
            (Self::Name, Some(FlagPlace::Name(name))) => Ok(FlagOrder::Name(Some(name))),
            (Self::NewestChange, None) => Ok(FlagOrder::NewestChange(None)),
            (Self::NewestChange, Some(FlagPlace::Revision(at, name))) => Ok(FlagOrder::NewestChange(Some((at, name)))),
            _ => Err(foreign_cursor()),
        }
    }

    pub(super) fn place(self, last: &FlagDetail) -> FlagPlace {
        let name = last.record.flag.name.to_string();
        match self {
            Self::Name => FlagPlace::Name(name),
            Self::NewestChange => FlagPlace::Revision(last.record.revision, name),
        }
    }
}
