//! What is left of a request that waits after the first look at it.
//!
//! The machine: the thread of the session looks at a task once, which so has sent the first call before it asks the kernel for
//! more. What is left then lies here, and no thread of the runtime knows of it. The first waker that is called gives it to the
//! runtime, whose it is from then on. So the runtime's threads are woken by the reply to a call, and not by the call.
//! Every request waits for time as well, its deadline or the next look for a signal, so that none lies here for ever.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// A request that is being answered.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Looks at a task once, on this thread; `runtime` does what is left. If the runtime is shut down, so is the task when it is
/// woken.
pub(super) fn begin(runtime: &Handle, mut task: Task) {
    let _entered = runtime.enter();
    let begun = Arc::new(Begun {
        state: Mutex::new(State::Looked),
        runtime: runtime.clone(),
    });
    let waker = Waker::from(Arc::clone(&begun));
    if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        begun.leave(task);
    }
}

/// Wakes a task by giving it to the runtime.
struct Begun {
    state: Mutex<State>,
    runtime: Handle,
}

enum State {
    /// It is being looked at, and was not woken since.
    Looked,
    /// It was woken before it was left.
    Woken,
    /// It waits for its first waker.
    Left(Task),
    /// It is the runtime's, or at its end.
    Gone,
}

impl Begun {
    /// The first look is over.
    fn leave(&self, task: Task) {
        let mut state = self.state.lock();
        if matches!(*state, State::Looked) {
            *state = State::Left(task);
            return;
        }
        *state = State::Gone;
        drop(state);
        self.runtime.spawn(task);
    }
}

impl Wake for Begun {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state.lock();
        match mem::replace(&mut *state, State::Gone) {
            State::Looked | State::Woken => *state = State::Woken,
            State::Left(task) => {
                // A task may be dropped by that, and wake others.
                drop(state);
                self.runtime.spawn(task);
            }
            State::Gone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::task::Poll;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn runtime() -> Runtime {
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    }

    /// A task that tells each look at it, until the `looks`-th, which ends it.
    fn told(
        looks: usize,
        tell: mpsc::Sender<(ThreadId, Option<Waker>)>,
        wakes_itself: bool,
    ) -> impl Future<Output = ()> {
        let mut look = 0;
        poll_fn(move |context| {
            look += 1;
            let ends = look == looks;
            let waker = (!ends).then(|| context.waker().clone());
            if wakes_itself {
                context.waker().wake_by_ref();
            }
            tell.send((thread::current().id(), waker)).unwrap();
            if ends { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    #[test]
    fn what_is_ready_at_the_first_look_is_done_here() {
        let (tell, heard) = mpsc::channel();
        begin(runtime().handle(), Box::pin(told(1, tell, false)));
        assert_eq!(heard.recv_timeout(LIMIT).unwrap().0, thread::current().id());
        assert!(heard.recv().is_err(), "it is dropped");
    }

    #[test]
    fn what_waits_is_left_alone_until_it_is_woken_and_then_the_runtimes() {
        let runtime = runtime();
        let (tell, heard) = mpsc::channel();
        begin(runtime.handle(), Box::pin(told(3, tell, false)));
        let (by, waker) = heard.recv_timeout(LIMIT).unwrap();
        assert_eq!(by, thread::current().id());
        runtime.block_on(tokio::task::yield_now());
        assert!(heard.try_recv().is_err(), "nobody has woken it");

        let waker = waker.unwrap();
        waker.wake_by_ref();
        let (by, next) = heard.recv_timeout(LIMIT).unwrap();
        assert_ne!(by, thread::current().id());
        waker.wake();
        // The first waker has done all it can.
        next.unwrap().wake();
        heard.recv_timeout(LIMIT).unwrap();
        assert!(heard.recv().is_err(), "it has ended, and is dropped");
    }

    #[test]
    fn a_wake_during_the_first_look_is_not_lost() {
        let runtime = runtime();
        let (tell, heard) = mpsc::channel();
        begin(runtime.handle(), Box::pin(told(2, tell, true)));
        heard.recv_timeout(LIMIT).unwrap();
        let (by, _) = heard.recv_timeout(LIMIT).unwrap();
        assert_ne!(by, thread::current().id());
        assert!(heard.recv().is_err());
    }

    #[test]
    fn a_task_ends_with_its_runtime() {
        let runtime = runtime();
        let (tell, heard) = mpsc::channel();
        begin(runtime.handle(), Box::pin(told(2, tell, false)));
        let waker = heard.recv_timeout(LIMIT).unwrap().1.unwrap();
        runtime.shutdown_timeout(LIMIT);
        waker.wake();
        assert!(heard.recv().is_err(), "it is dropped, and not looked at");
    }

    #[test]
    fn what_waits_for_time_is_woken_by_it() {
        let runtime = runtime();
        let (tell, heard) = mpsc::channel();
        begin(
            runtime.handle(),
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                tell.send(()).unwrap();
            }),
        );
        heard.recv_timeout(LIMIT).unwrap();
    }
}
