//! [`InHand`]: what a service is doing at this moment, for whoever wants to know what hangs.

use std::cell::Cell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_core::Context;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// Locks, so that threads rarely meet at one.
const SHARDS: usize = 16;

/// How many of a kind are shown one by one: the oldest, which are those that hang.
const SHOWN: usize = 20;

/// The work in hand of one service: requests, events, lanes. A clone is the same.
///
/// To begin and to end a piece takes a lock that is nearly always free, and no allocation.
#[derive(Clone, Default)]
pub struct InHand(Arc<[Mutex<Shard>; SHARDS]>);

#[derive(Default)]
struct Shard {
    pieces: Vec<Option<Piece>>,
    free: Vec<usize>,
}

struct Piece {
    kind: &'static str,
    name: (&'static str, Arc<str>),
    ctx: Context,
    since: Instant,
}

/// Work in hand for as long as this exists.
#[must_use = "the work is over when it is dropped"]
pub struct Piecework {
    all: InHand,
    shard: usize,
    index: usize,
}

impl InHand {
    /// The register that `ctx` carries, if it carries one; see [`InHand::carry`].
    pub fn of(ctx: &Context) -> Option<&Self> {
        ctx.value::<Self>()
    }

    /// A child of `ctx` that carries this register to the parts of the service that work by themselves.
    #[must_use]
    pub fn carry(&self, ctx: &Context) -> Context {
        ctx.with_value(self.clone())
    }

    /// Notes a piece of work of the kind `kind` under two words, as a method and a route. `ctx` tells its deadline and its
    /// identity.
    pub fn begin(&self, kind: &'static str, name: (&'static str, Arc<str>), ctx: &Context) -> Piecework {
        let piece = Piece { kind, name, ctx: ctx.clone(), since: Instant::now() };
        let number = of_this_thread();
        let mut guard = self.0[number].lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { pieces, free } = &mut *guard;
        let index = free.pop().unwrap_or(pieces.len());
        match pieces.get_mut(index) {
            Some(place) => *place = Some(piece),
            None => pieces.push(Some(piece)),
        }
        drop(guard);
        Piecework { all: self.clone(), shard: number, index }
    }

    /// What is in hand, by kind: how much, and the oldest with their age, what is left of their deadline, and who asked.
    pub fn show(&self) -> Value {
        let mut kinds: Map<String, Value> = Map::new();
        let mut all = Vec::new();
        for shard in &*self.0 {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let pieces = shard.pieces.iter().flatten();
            all.extend(pieces.map(|piece| (piece.since, piece.kind, piece.name.clone(), piece.ctx.clone())));
        }
        all.sort_by_key(|(since, ..)| *since);
        for (since, kind, name, ctx) in all {
            let entry = kinds.entry(kind).or_insert_with(|| json!({ "count": 0, "oldest": [] }));
            let count = entry["count"].as_u64().unwrap_or_default();
            entry["count"] = (count + 1).into();
            if let Some(oldest) = entry["oldest"].as_array_mut().filter(|oldest| oldest.len() < SHOWN) {
                oldest.push(describe(since, name, &ctx));
            }
        }
        kinds.into()
    }
}

fn describe(since: Instant, (first, second): (&str, Arc<str>), ctx: &Context) -> Value {
    let mut piece = json!({ "name": format!("{first} {second}"), "seconds": since.elapsed().as_secs_f64() });
    if let Some(left) = ctx.remaining() {
        piece["deadline_left_seconds"] = left.as_secs_f64().into();
    }
    if ctx.is_done() {
        piece["cancelled"] = true.into(); // and still here: its code doesn't look at its context
    }
    if let Some(id) = ctx.request_id() {
        piece["request_id"] = id.as_str().into();
    }
    if let Some(trace) = ctx.trace() {
        piece["trace_id"] = format!("{:032x}", trace.trace_id).into();
    }
    piece
}

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The shard in which this thread begins its work; any thread may end it.
fn of_this_thread() -> usize {
    SHARD.get().unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        std::thread::current().id().hash(&mut hasher);
        let shard = hasher.finish() as usize % SHARDS;
        SHARD.set(Some(shard));
        shard
    })
}

impl Drop for Piecework {
    fn drop(&mut self) {
        let mut guard = self.all.0[self.shard].lock().unwrap_or_else(PoisonError::into_inner);
        let piece = guard.pieces.get_mut(self.index).and_then(Option::take);
        guard.free.push(self.index);
        drop(guard);
        drop(piece); // its context may be the last of a tree
    }
}

impl fmt::Debug for InHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InHand")
    }
}

impl fmt::Debug for Piecework {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Piecework")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_come_first_and_what_ends_is_gone() {
        let work = InHand::default();
        let ctx = Context::background();
        let hung = work.begin("request", ("GET", "/slow".into()), &ctx.with_timeout(Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(3)).await;
        let many: Vec<_> = (0..100).map(|_| work.begin("request", ("GET", "/fast".into()), &ctx)).collect();
        let lane = std::thread::scope(|scope| {
            scope.spawn(|| work.begin("lane", ("group", "count, partition 1".into()), &ctx)).join().unwrap()
        });
        let shown = work.show();
        assert_eq!((&shown["request"]["count"], &shown["lane"]["count"]), (&json!(101), &json!(1)), "{shown}");
        let oldest = shown["request"]["oldest"].as_array().unwrap();
        assert_eq!((oldest.len(), &oldest[0]["name"]), (SHOWN, &json!("GET /slow")));
        assert_eq!((&oldest[0]["seconds"], &oldest[0]["deadline_left_seconds"]), (&json!(3.0), &json!(0.0)));
        drop((hung, many, lane));
        assert_eq!(work.show(), json!({}));
        let places = |work: &InHand| work.0.iter().map(|shard| shard.lock().unwrap().pieces.len()).sum::<usize>();
        let before = places(&work);
        drop(work.begin("request", ("GET", "/fast".into()), &ctx));
        assert_eq!(places(&work), before, "places are used again");
    }
}
