//! Lists of users, and the ways to find those that are searched for.
//!
//! A search that has few users is answered by the search index, and those few are put in order. Of one that has very many
//! only the first in order are wanted: the order's index is walked and each user looked at. Which of them it is only
//! the total tells, and it is counted first anyhow. Where a walk meets too few (those that match may all come late) it
//! is given up for the search index.

use std::{cmp::Reverse, collections::HashMap, ops::Range};

use diesel::{
    BoolExpressionMethods, EscapeExpressionMethods, ExpressionMethods, JoinOnDsl, QueryDsl, SelectableHelper,
    TextExpressionMethods, dsl::exists,
};
use diesel_async::RunQueryDsl;
use flags_domain::Instant;
use uuid::Uuid;

use super::{
    Row, UserRecord,
    search::{Prefix, SearchTerm, Substring},
};
use crate::{
    backend::{self, Explaining},
    error::Result,
    page::{Computed, CountUpTo, Explained, MAX_TOTAL, Page},
    schema::{feature_flags, user_flag_overrides, users},
    sql_types::{DbInstant, DbUuid},
    store::{Backend, Conn, on},
};

/// How many users a walk looks at before it is given up. Among so many are enough for a page if more than [`MAX_TOTAL`] of
/// a million match and lie evenly.
const WALK: i64 = 10_000;

/// Which users a list is to hold; all that is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Any part of e-mail or name, in lower case; below three characters their beginnings.
    pub search: Option<String>,
    /// Only those with an override of an unarchived flag that has not expired at the given instant, or only those without.
    pub has_overrides: Option<(bool, Instant)>,
}

/// In what order, and after what.
#[derive(Clone, Debug)]
pub enum UserOrder {
    /// By e-mail. No two are alike, so that the id is never asked.
    Email(Option<(String, Uuid)>),
    /// Newest first, then id.
    Newest(Option<(Instant, Uuid)>),
}

/// What is asked of the users in one query.
#[derive(Clone, Copy)]
enum Condition<'a> {
    Any,
    EmailBegins(&'a Prefix),
    /// The e-mail does, and is written so that it is in this range.
    EmailWritten(&'a Range<String>, &'a Prefix),
    NameBegins(&'a Prefix),
    /// The name does, and the e-mail does not.
    OnlyNameBegins(&'a Prefix),
    /// Either does, by their indexes.
    Begins(&'a Prefix),
    /// Either does, by looking at each.
    HasBeginning(&'a Prefix),
    /// Has this part, by the search index.
    Indexed(&'a Substring),
    /// Has this part, by looking at each.
    Has(&'a Substring),
}

/// How a query comes by its order.
#[derive(Clone, Copy)]
enum ScanStrategy<'a> {
    /// Along the order's index, to its end or up to this place.
    Walk(Option<&'a Place>),
    /// All that match are found first and then sorted. The planner is given no choice: it would take a walk for those that
    /// may come late.
    Sort,
}

/// A place in either order.
enum Place {
    Email(String),
    Created(DbInstant, DbUuid),
}

/// E-mail, instant and id of a user.
type Gathered = (String, DbInstant, DbUuid);

/// What the statements of a list share.
struct Reader<'a> {
    conn: &'a mut Conn,
    filter: &'a UserFilter,
    /// How the database went about it, if somebody wants to know.
    plans: Option<Vec<String>>,
}

/// A page of users.
pub async fn list(conn: &mut Conn, filter: &UserFilter, order: UserOrder, limit: u32) -> Result<Page<UserRecord>> {
    Reader { conn, filter, plans: None }.list(order, limit).await
}

/// How the database finds a page of users: the plans of all statements, line by line.
pub async fn plans(conn: &mut Conn, filter: &UserFilter, order: UserOrder, limit: u32) -> Result<Vec<String>> {
    let mut reader = Reader { conn, filter, plans: Some(Vec::new()) };
    reader.list(order, limit).await?;
    Ok(reader.plans.unwrap_or_default())
}

/// These columns of all that meet a condition and the filter, without order.
macro_rules! such {
    ($columns:expr, $condition:expr, $filter:expr) => {{
        use users::dsl;
        let mut query = dsl::users.select($columns).into_boxed::<Db>();
        match $condition {
            Condition::Any => {}
            Condition::EmailBegins(Prefix { lower: Range { start, end }, .. }) => {
                query = query.filter(dsl::email_key.ge(start).and(dsl::email_key.lt(end)));
            }
            Condition::EmailWritten(written, Prefix { lower: Range { start, end }, .. }) => {
                query = query.filter(dsl::email.ge(&written.start).and(dsl::email.lt(&written.end)));
                query = query.filter(Computed(dsl::email_key).ge(start).and(Computed(dsl::email_key).lt(end)));
            }
            Condition::NameBegins(Prefix { lower: Range { start, end }, .. }) => {
                query = query.filter(dsl::name_start.ge(start).and(dsl::name_start.lt(end)));
            }
            Condition::OnlyNameBegins(Prefix { lower: Range { start, end }, .. }) => {
                query = query.filter(dsl::name_start.ge(start).and(dsl::name_start.lt(end)));
                query = query.filter(dsl::email_key.lt(start).or(dsl::email_key.ge(end)));
            }
            Condition::Begins(Prefix { lower: Range { start, end }, .. }) => {
                let of_email = dsl::email_key.ge(start).and(dsl::email_key.lt(end));
                query = query.filter(of_email.or(dsl::name_start.ge(start).and(dsl::name_start.lt(end))));
            }
            Condition::HasBeginning(Prefix { lower: Range { start, end }, .. }) => {
                let of_email = Computed(dsl::email_key).ge(start).and(Computed(dsl::email_key).lt(end));
                let of_name = Computed(dsl::name_start).ge(start).and(Computed(dsl::name_start).lt(end));
                query = query.filter(of_email.or(of_name));
            }
            Condition::Indexed(part) => query = query.filter(part.indexed()),
            Condition::Has(part) => query = query.filter(dsl::search_text.like(&part.pattern).escape('\\')),
        }
        if let Some((wanted, now)) = $filter.has_overrides {
            let live = user_flag_overrides::table
                .inner_join(feature_flags::table.on(feature_flags::name.eq(user_flag_overrides::flag_name)));
            let live = live.filter(feature_flags::archived_at.is_null());
            let theirs = live.filter(user_flag_overrides::user_id.eq(dsl::id)).filter(
                user_flag_overrides::expires_at.is_null().or(diesel::NullableExpressionMethods::assume_not_null(
                    user_flag_overrides::expires_at.gt(DbInstant(now)),
                )),
            );
            query = if wanted { query.filter(exists(theirs)) } else { query.filter(diesel::dsl::not(exists(theirs))) };
        }
        query
    }};
}

/// E-mails and ids of all that meet a condition and the filter, in order.
macro_rules! in_order {
    ($condition:expr, $filter:expr, $order:expr, $way:expr) => {{
        use users::dsl;
        let mut query = such!((dsl::email, dsl::id), $condition, $filter);
        match $order {
            UserOrder::Email(None) | UserOrder::Newest(None) => {}
            UserOrder::Email(Some((email, _))) => query = query.filter(dsl::email.gt(email)),
            UserOrder::Newest(Some((at, id))) => {
                // That it is no later follows from the rest, but says where in the index to begin.
                query = query.filter(dsl::created_at.le(DbInstant(*at)));
                query = query.filter(dsl::created_at.lt(DbInstant(*at)).or(dsl::id.gt(DbUuid(*id))));
            }
        }
        match $way {
            ScanStrategy::Walk(None) | ScanStrategy::Sort => {}
            ScanStrategy::Walk(Some(Place::Email(end))) => query = query.filter(dsl::email.lt(end)),
            ScanStrategy::Walk(Some(Place::Created(at, id))) => {
                query = query.filter(dsl::created_at.ge(*at)).filter(dsl::created_at.gt(*at).or(dsl::id.lt(*id)));
            }
        }
        match ($order, $way) {
            (UserOrder::Email(_), ScanStrategy::Walk(_)) => query.order(dsl::email),
            (UserOrder::Email(_), ScanStrategy::Sort) => query.order(Computed(dsl::email)),
            (UserOrder::Newest(_), ScanStrategy::Walk(_)) => query.order((dsl::created_at.desc(), dsl::id)),
            (UserOrder::Newest(_), ScanStrategy::Sort) => query.order((Computed(dsl::created_at).desc(), dsl::id)),
        }
    }};
}

/// Notes the plan of a query if plans are wanted.
macro_rules! note {
    ($plans:expr, $c:ident, $query:expr) => {
        if let Some(plans) = &mut $plans {
            let query = Explained::<_, Db>::new($query);
            let lines = query.load::<<Db as Explaining>::Line>($c).await?;
            plans.extend(lines.into_iter().map(Db::text));
        }
    };
}

impl Reader<'_> {
    async fn list(&mut self, order: UserOrder, limit: u32) -> Result<Page<UserRecord>> {
        let sought = self.filter.search.as_deref().and_then(SearchTerm::new);
        let bound = limit + 1;
        let (total, found) = match &sought {
            None => {
                let total = self.count(Condition::Any).await?;
                (total, self.places(Condition::Any, &order, ScanStrategy::Walk(None), bound).await?)
            }
            Some(SearchTerm::Prefix(beginning)) => {
                let of_email = self.count(Condition::EmailBegins(beginning)).await?;
                let of_name = self.count(Condition::OnlyNameBegins(beginning)).await?;
                let total = (of_email + of_name).min(MAX_TOTAL + 1);
                let found = match &order {
                    UserOrder::Email(_) => {
                        let know = Condition::HasBeginning(beginning);
                        match self.walk_if_many(total, know, &order, bound).await? {
                            Some(met) => met,
                            None => self.beginnings_by_email(beginning, &order, bound).await?,
                        }
                    }
                    UserOrder::Newest(_) => {
                        let conditions = [Condition::Begins(beginning), Condition::HasBeginning(beginning)];
                        self.few_or_many(total, conditions, &order, bound).await?
                    }
                };
                (total, found)
            }
            Some(SearchTerm::Substring(part)) => match self.gather(part).await? {
                Some(all) => (i64::try_from(all.len()).unwrap_or(i64::MAX), first_of(all, &order, bound)),
                None => {
                    let conditions = [Condition::Indexed(part), Condition::Has(part)];
                    (MAX_TOTAL + 1, self.few_or_many(MAX_TOTAL + 1, conditions, &order, bound).await?)
                }
            },
        };
        let page = Page::cut(found, limit, total);
        let ids: Vec<_> = page.items.into_iter().map(|(_, id)| id).collect();
        Ok(Page { items: self.load(&ids).await?, total, has_more: page.has_more })
    }

    /// How many there are, up to one more than [`MAX_TOTAL`].
    async fn count(&mut self, condition: Condition<'_>) -> Result<i64> {
        on!(self.conn, |c| {
            // SQLite would fetch each row for a column that its index lacks, wanted or not.
            note!(self.plans, c, CountUpTo(such!(users::email_key, condition, self.filter)));
            CountUpTo(such!(users::email_key, condition, self.filter)).get_result(c).await
        })
    }

    /// All that have a part, with all that an order needs; `None` if there are more than [`MAX_TOTAL`]. To count them first
    /// and then to find and sort them would take as long twice.
    async fn gather(&mut self, part: &Substring) -> Result<Option<Vec<Gathered>>> {
        let many = usize::try_from(MAX_TOTAL).unwrap_or(usize::MAX);
        let condition = match &mut self.conn.0 {
            // Whether there are very many the index of SQLite says at once, if nothing else is asked.
            Backend::Sqlite(c) => {
                let found = part.found_by_phrase().filter(|_| self.filter.has_overrides.is_none());
                if let Some(found) = found {
                    type Db = diesel::sqlite::Sqlite;
                    note!(self.plans, c, CountUpTo(found.clone()));
                    if backend::sqlite::count_up_to(c, found).await? > MAX_TOTAL {
                        return Ok(None);
                    }
                }
                Condition::Indexed(part)
            }
            // What every fifth has is found sooner by looking at all than by an index that names very many; and of what some
            // hundredths have there are probably more than are wanted.
            Backend::Postgres(c) => {
                let share = backend::postgres::estimated_share(c, &part.pattern).await?;
                let condition = if share >= 0.2 { Condition::Has(part) } else { Condition::Indexed(part) };
                if share >= 0.02 && self.count(condition).await? > MAX_TOTAL {
                    return Ok(None);
                }
                condition
            }
        };
        let all: Vec<Gathered> = on!(self.conn, |c| {
            use users::dsl::{created_at, email, id};
            let query = || such!((email, created_at, id), condition, self.filter).limit(MAX_TOTAL + 1);
            note!(self.plans, c, query());
            query().load(c).await
        })?;
        Ok(Some(all).filter(|all| all.len() <= many))
    }

    /// The first in order of those that meet a condition, given as one to find them by and one to know them by.
    async fn few_or_many(
        &mut self,
        total: i64,
        [find, know]: [Condition<'_>; 2],
        order: &UserOrder,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        match self.walk_if_many(total, know, order, limit).await? {
            Some(met) => Ok(met),
            None => self.places(find, order, ScanStrategy::Sort, limit).await,
        }
    }

    /// The first in order of very many, if a walk meets enough of them.
    async fn walk_if_many(
        &mut self,
        total: i64,
        know: Condition<'_>,
        order: &UserOrder,
        limit: u32,
    ) -> Result<Option<Vec<(String, DbUuid)>>> {
        if total <= MAX_TOTAL {
            return Ok(None);
        }
        let end = self.end_of_walk(order).await?;
        let met = self.places(know, order, ScanStrategy::Walk(end.as_ref()), limit).await?;
        Ok(Some(met).filter(|met| end.is_none() || met.len() >= limit as usize))
    }

    /// The first by e-mail of those of whom e-mail or name begin so. Of e-mails the index knows them; those of names are
    /// sorted, and put between.
    async fn beginnings_by_email(
        &mut self,
        beginning: &Prefix,
        order: &UserOrder,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        let mut found = Vec::new();
        for written in &beginning.written {
            let missing = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(limit));
            if missing > 0 {
                let condition = Condition::EmailWritten(written, beginning);
                found.extend(self.places(condition, order, ScanStrategy::Walk(None), missing).await?);
            }
        }
        found.extend(self.places(Condition::NameBegins(beginning), order, ScanStrategy::Sort, limit).await?);
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found.dedup_by(|(one, _), (other, _)| one == other);
        found.truncate(limit as usize);
        Ok(found)
    }

    /// The first in order of those that meet a condition.
    async fn places(
        &mut self,
        condition: Condition<'_>,
        order: &UserOrder,
        way: ScanStrategy<'_>,
        limit: u32,
    ) -> Result<Vec<(String, DbUuid)>> {
        let limit = i64::from(limit);
        on!(self.conn, |c| {
            note!(self.plans, c, in_order!(condition, self.filter, order, way).limit(limit));
            in_order!(condition, self.filter, order, way).limit(limit).load(c).await
        })
    }

    /// The place [`WALK`] users on in the order; `None` if there are not as many.
    async fn end_of_walk(&mut self, order: &UserOrder) -> Result<Option<Place>> {
        use diesel::OptionalExtension as _;
        use users::dsl;
        match order {
            UserOrder::Email(after) => {
                let after = after.as_ref().map_or("", |(email, _)| email);
                let end = on!(self.conn, |c| {
                    let rest = dsl::users.filter(dsl::email.gt(after)).order(dsl::email);
                    rest.select(dsl::email).offset(WALK).first(c).await.optional()
                })?;
                Ok(end.map(Place::Email))
            }
            UserOrder::Newest(after) => {
                let (at, id) = after.unwrap_or((Instant::from_micros(i64::MAX), Uuid::nil()));
                let (at, id) = (DbInstant(at), DbUuid(id));
                let end: Option<(DbInstant, DbUuid)> = on!(self.conn, |c| {
                    let rest = dsl::users.filter(dsl::created_at.le(at));
                    let rest = rest.filter(dsl::created_at.lt(at).or(dsl::id.gt(id)));
                    let rest = rest.order((dsl::created_at.desc(), dsl::id)).select((dsl::created_at, dsl::id));
                    rest.offset(WALK).first(c).await.optional()
                })?;
                Ok(end.map(|(at, id)| Place::Created(at, id)))
            }
        }
    }

    /// The users of these ids that are still there, in the order given.
    async fn load(&mut self, ids: &[DbUuid]) -> Result<Vec<UserRecord>> {
        let rows: Vec<Row> =
            on!(self.conn, |c| { users::table.filter(users::id.eq_any(ids)).select(Row::as_select()).load(c).await })?;
        let mut rows: HashMap<DbUuid, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        ids.iter().filter_map(|id| rows.remove(id)).map(TryInto::try_into).collect()
    }
}

/// The first in order of these.
fn first_of(mut all: Vec<Gathered>, order: &UserOrder, limit: u32) -> Vec<(String, DbUuid)> {
    match order {
        UserOrder::Email(after) => {
            all.retain(|(email, ..)| after.as_ref().is_none_or(|(after, _)| email > after));
            all.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        }
        UserOrder::Newest(after) => {
            let key = |(_, at, id): &Gathered| (Reverse(at.0), id.0);
            all.retain(|user| after.is_none_or(|(at, id)| key(user) > (Reverse(at), id)));
            all.sort_unstable_by_key(key);
        }
    }
    all.into_iter().take(limit as usize).map(|(email, _, id)| (email, id)).collect()
}
