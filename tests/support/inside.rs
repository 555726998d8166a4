//! byway inside the test's own process: one queue of an interface, with an application of the test's.

use byway_bpf::{AttachMode, Steering};
use byway_datapath::clock::Clock;
use byway_datapath::config::{Config as Datapath, Rings};
use byway_datapath::control::Waker;
use byway_datapath::core_loop::{CoreLoop, Idle, Rest};
use byway_datapath::link::Link;
use byway_datapath::port::Port;
use byway_datapath::umem::Umem;
use byway_datapath::xsk::Xsk;
use byway_lab::{BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6};
use byway_tcp::app::App;
use byway_tcp::frame::FramePool;
use byway_tcp::stack::{Cidr, Config as StackConfig, Stack};
use byway_tcp::time::Duration;

/// Longest sleep: how soon it is seen that the test has had enough.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A core loop on [`BYWAY_INTERFACE`], with byway's addresses.
pub struct Inside<A> {
    // Before the loop: detached before the socket is closed (D9).
    _steering: Steering,
    pub core: CoreLoop<Xsk, Umem, A>,
}

impl<A: App> Inside<A> {
    /// Attaches; call it inside byway's namespace. `prepare` listens and connects, and gives the application.
    pub fn start(prepare: impl FnOnce(&mut Stack<Umem>) -> A) -> Self {
        let link = Link::query(BYWAY_INTERFACE).expect("link");
        // 32 MiB: a few hundred connections.
        let rings = Rings { fill: 2048, rx: 1024, tx: 1024, completion: 2048 };
        let config = Datapath { frame_count: 16_384, rings, ..Datapath::default() };
        // SAFETY: it goes into the one pool below.
        let umem = unsafe { Umem::new(&config) }.expect("UMEM");
        // SAFETY: the port, and the stack with the pool over this UMEM, go into one loop.
        let port = unsafe { Xsk::open(&umem, &config, BYWAY_INTERFACE, 0) }.expect("socket");
        let mut stack_config = StackConfig::new(link.mac, *b"thirty-two octets nobody guesses");
        let own = [(BYWAY_IPV4.into(), 24), (BYWAY_IPV6.into(), 64)];
        stack_config.addresses = own.map(|(address, prefix)| Cidr { address, prefix }).to_vec();
        let mut stack = Stack::new(stack_config, FramePool::new(umem));
        let app = prepare(&mut stack);
        let core = CoreLoop::new(port, stack, app);

        let mut steering = Steering::load().expect("program");
        for (address, _) in own {
            steering.add_address(address).expect("address");
        }
        steering.register_socket(0, core.port().fd()).expect("socket");
        steering.attach(link.index as i32, AttachMode::Native).expect("attaches");
        Self { _steering: steering, core }
    }

    /// Turns the loop until `enough` says so, after a turn.
    pub fn turn_until(&mut self, mut enough: impl FnMut(&CoreLoop<Xsk, Umem, A>) -> bool) {
        let waker = Waker::new().expect("waker");
        let mut idle = Idle::new(Some(Duration::from_micros(50)));
        loop {
            let now = Clock.now();
            let turn = self.core.turn(now).expect("turns");
            if enough(&self.core) {
                break;
            }
            if let Rest::Sleep(timeout) = idle.after(turn, now, self.core.next_deadline()) {
                let timeout = timeout.min(LOOK_EVERY);
                self.core.sleeping(now + timeout);
                self.core.port_mut().park(timeout.into(), &waker).expect("parks");
            }
        }
        self.core.assert_conserved();
    }
}
