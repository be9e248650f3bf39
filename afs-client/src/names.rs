//! Names of users and groups, and their numbers, as the protection servers of cells know them.
//!
//! The machine: what a server said is kept for some minutes, that it knows nobody of a name or number as well; of what is
//! kept, the part that was not asked for longest makes room. What is not known is asked for in one call, however many it is.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::io::Errno;
use rxrpc::net::Endpoint;
use rxrpc::security::Security;

use crate::cell::Cell;
use crate::clock;
use crate::database::Database;
use crate::error::Error;
use crate::rpc::Procedure;
use crate::rpc::pt::{ANONYMOUS, IdToName, NameToId, PORT, ProtectionName};
use crate::types::CellId;
use crate::xdr::List;

/// The names and numbers of all cells.
pub struct Names {
    endpoint: Endpoint,
    names: Mutex<Kept<i32, Arc<str>>>,
    ids: Mutex<Kept<String, i32>>,
}

/// What a server has answered, and when; `None` if it knows no such user or group.
struct Kept<Q, A>(LruCache<(CellId, Q), (Option<A>, Instant)>);

impl<Q: std::hash::Hash + Eq, A: Clone> Kept<Q, A> {
    fn new() -> Self {
        Self(LruCache::new(KEPT))
    }

    fn find(&mut self, cell: CellId, question: Q, now: Instant) -> Option<Option<A>> {
        let (answer, at) = self.0.get(&(cell, question))?;
        (now.saturating_duration_since(*at) < KEPT_FOR).then(|| answer.clone())
    }

    fn keep(&mut self, cell: CellId, question: Q, answer: Option<A>, now: Instant) {
        self.0.put((cell, question), (answer, now));
    }
}

impl Names {
    /// Asks from this endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            names: Mutex::new(Kept::new()),
            ids: Mutex::new(Kept::new()),
        }
    }

    /// The names of these users (positive numbers) and groups (negative ones) of a cell, in their order; `None` for those
    /// that it does not know. Who is asked for more than its server lets anybody see needs `security`. Cancel safe.
    ///
    /// # Errors
    ///
    /// No protection server answers before the deadline, or one refuses.
    pub async fn names_of(
        &self,
        cell: &Cell,
        ids: &[i32],
        security: &Security,
        deadline: Instant,
    ) -> Result<Vec<Option<Arc<str>>>, Error> {
        let now = clock::now();
        let find = |id: &i32| self.names.lock().find(cell.id, *id, now);
        let mut found: Vec<_> = ids.iter().map(find).collect();
        let missing = missing(ids, &found);
        for asked in missing.chunks(ASKED_AT_ONCE) {
            let request = IdToName {
                ids: List(asked.to_vec()),
            };
            let names = self.ask(cell, &request, security, deadline).await?.names.0;
            if names.len() != asked.len() {
                return Err(other_number());
            }
            let mut kept = self.names.lock();
            for (id, name) in asked.iter().zip(names) {
                let name = name.text();
                // An unknown number comes back in digits.
                let known = name != id.to_string() && !name.is_empty();
                let name = known.then(|| Arc::from(name));
                kept.keep(cell.id, *id, name.clone(), now);
                answer(ids, &mut found, id, &name);
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// The numbers of these users and groups of a cell, in their order; `None` for those that it does not know. Capitals
    /// do not count. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`names_of`](Self::names_of).
    pub async fn ids_of(
        &self,
        cell: &Cell,
        names: &[&str],
        security: &Security,
        deadline: Instant,
    ) -> Result<Vec<Option<i32>>, Error> {
        let now = clock::now();
        let names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let find = |name: &String| {
            // What no server can know need not be asked for.
            let fits = ProtectionName::new(name).is_some();
            let kept = || self.ids.lock().find(cell.id, name.clone(), now);
            if fits { kept() } else { Some(None) }
        };
        let mut found: Vec<_> = names.iter().map(find).collect();
        let missing = missing(&names, &found);
        for asked in missing.chunks(ASKED_AT_ONCE) {
            let request = NameToId {
                names: List(
                    asked
                        .iter()
                        .filter_map(|name| ProtectionName::new(name))
                        .collect(),
                ),
            };
            let ids = self.ask(cell, &request, security, deadline).await?.ids.0;
            if ids.len() != asked.len() {
                return Err(other_number());
            }
            let mut kept = self.ids.lock();
            for (name, id) in asked.iter().zip(ids) {
                let id = (id != ANONYMOUS || name == NOBODY).then_some(id);
                kept.keep(cell.id, name.clone(), id, now);
                answer(&names, &mut found, name, &id);
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    async fn ask<P: Procedure>(
        &self,
        cell: &Cell,
        request: &P,
        security: &Security,
        deadline: Instant,
    ) -> Result<P::Reply, Error> {
        let database = Database {
            endpoint: &self.endpoint,
            cell,
            port: Some(PORT),
            security,
        };
        Ok(database.ask(request, deadline).await?)
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names")
            .field("names", &self.names.lock().0.len())
            .field("ids", &self.ids.lock().0.len())
            .finish_non_exhaustive()
    }
}

/// The questions that have no answer yet, each once.
fn missing<Q: Clone + PartialEq, A>(questions: &[Q], found: &[Option<A>]) -> Vec<Q> {
    let mut missing = Vec::new();
    for (question, answer) in questions.iter().zip(found) {
        if answer.is_none() && !missing.contains(question) {
            missing.push(question.clone());
        }
    }
    missing
}

/// Puts an answer wherever it was asked for.
fn answer<Q: PartialEq, A: Clone>(questions: &[Q], found: &mut [Option<A>], question: &Q, answer: &A) {
    for (asked, place) in questions.iter().zip(found) {
        if asked == question && place.is_none() {
            *place = Some(answer.clone());
        }
    }
}

fn other_number() -> Error {
    Error::new(
        Errno::IO,
        "the protection server gives another number of answers than it was asked for",
    )
}

const NOBODY: &str = "anonymous";
/// Answers kept for each of the two questions.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not 0");
/// A user who was made or renamed is known after so long.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// Names in one call: 64 kB of them.
const ASKED_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_some_time_and_not_for_other_cells() {
        let mut kept = Kept::new();
        let now = clock::now();
        kept.keep(CellId(1), 7, Some("alice"), now);
        kept.keep(CellId(1), 8, None, now);
        assert_eq!(kept.find(CellId(1), 7, now), Some(Some("alice")));
        assert_eq!(kept.find(CellId(1), 8, now), Some(None));
        assert_eq!(kept.find(CellId(2), 7, now), None);
        assert_eq!(kept.find(CellId(1), 7, now + KEPT_FOR), None);
        for id in 0..10_000 {
            kept.keep(CellId(3), id, None, now);
        }
        assert_eq!(kept.0.len(), 4096);
        assert_eq!(kept.find(CellId(1), 7, now), None);
    }

    #[test]
    fn each_question_is_asked_once_and_answered_everywhere() {
        let questions = [3, 4, 3, 5];
        let mut found = [None, Some(40), None, None];
        assert_eq!(missing(&questions, &found), [3, 5]);
        answer(&questions, &mut found, &3, &30);
        assert_eq!(found, [Some(30), Some(40), Some(30), None]);
    }
}
