//! Query parameters of the flag list.

use flags_service::flags::FlagItem;
use flags_store::flags::FlagOrder;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    extract::{PageCursor, PageLimit, deserialize_search_text, invalid_cursor},
    problem::Problem,
};

/// Sort order of flags.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) enum FlagSort {
    /// By name.
    #[default]
    #[serde(rename = "name")]
    Name,
    /// By last change, most recent first.
    #[serde(rename = "-updated_at")]
    RecentlyUpdated,
}

/// Filters and pagination.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFlagsQuery {
    /// Case-insensitive search anywhere in name and description.
    #[serde(default, deserialize_with = "deserialize_search_text")]
    #[param(max_length = 255)]
    pub(super) search: Option<String>,
    /// Only flags with this tag.
    #[serde(default, deserialize_with = "deserialize_search_text")]
    #[param(max_length = 255)]
    pub(super) tag: Option<String>,
    /// `true`: only archived flags. `false`: only flags that are not archived. Omitted: both.
    pub(super) archived: Option<bool>,
    /// Sort order: `name` (default), or `-updated_at` for most recently changed first.
    #[serde(default)]
    #[param(inline, value_type = Option<FlagSort>)]
    pub(super) sort: FlagSort,
    /// Maximum number of items.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: PageLimit,
    /// `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    pub(super) cursor: Option<PageCursor<FlagPageCursor>>,
}

/// Position in a list of flags, for each sort order.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum FlagPageCursor {
    Name(String),
    Revision(i64, String),
}

impl FlagSort {
    pub(super) fn order(self, after: Option<FlagPageCursor>) -> Result<FlagOrder, Problem> {
        match (self, after) {
            (Self::Name, None) => Ok(FlagOrder::Name(None)),
            (Self::Name, Some(FlagPageCursor::Name(name))) => Ok(FlagOrder::Name(Some(name))),
            (Self::RecentlyUpdated, None) => Ok(FlagOrder::RecentlyUpdated(None)),
            (Self::RecentlyUpdated, Some(FlagPageCursor::Revision(revision, name))) => {
                Ok(FlagOrder::RecentlyUpdated(Some((revision, name))))
            }
            _ => Err(invalid_cursor()),
        }
    }

    pub(super) fn cursor_after(self, last: &FlagItem) -> FlagPageCursor {
        let name = last.name().to_string();
        match self {
            Self::Name => FlagPageCursor::Name(name),
            Self::RecentlyUpdated => FlagPageCursor::Revision(last.revision(), name),
        }
    }
}
