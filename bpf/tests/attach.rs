//! The program on a real interface: a veth pair between two namespaces.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use byway_bpf::{AttachMode, Attached, Error, Mode, Steering};
use byway_lab::{
    BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, KERNEL_INTERFACE, KERNEL_IPV4, Lab, LabOptions, Namespace,
    VethOptions, is_root,
};
use libbpf_rs::{Xdp, XdpFlags};

fn lab() -> Lab {
    Lab::new(LabOptions::default()).unwrap()
}

fn attach(steering: &mut Steering, namespace: &Namespace, mode: AttachMode) -> Result<Attached, Error> {
    let ifindex = namespace.ifindex(BYWAY_INTERFACE).unwrap() as i32;
    namespace.enter(|| steering.attach(ifindex, mode))
}

/// What `ip link` says of XDP: "xdp", "xdpgeneric" or nothing.
fn on_interface(namespace: &Namespace) -> Option<&'static str> {
    let shown = namespace.run(&format!("ip -d link show {BYWAY_INTERFACE}")).unwrap();
    let words: Vec<_> = shown.split_whitespace().collect();
    ["xdp", "xdpgeneric"].into_iter().find(|mode| words.contains(mode))
}

fn counter(steering: &Steering, name: &str) -> u64 {
    steering.counters().unwrap().iter().find(|(counter, _)| *counter == name).unwrap().1
}

/// Waits for what the kernel does a moment later.
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not within two seconds: {what}");
}

/// One datagram to an address: the kernel asks who has it.
fn ask_for(lab: &Lab, address: IpAddr) {
    lab.kernel.enter(|| {
        let socket = UdpSocket::bind(match address {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        });
        socket.unwrap().send_to(b"?", (address, 9)).unwrap();
    });
}

#[test]
fn each_mode_is_the_one_asked_for_and_ends_with_its_owner() {
    if !is_root() {
        return;
    }
    let lab = lab();
    for (asked, mode, shown) in [
        (AttachMode::Auto, Mode::Native, "xdp"),
        (AttachMode::Native, Mode::Native, "xdp"),
        (AttachMode::Generic, Mode::Generic, "xdpgeneric"),
    ] {
        let mut steering = Steering::load().unwrap();
        let attached = attach(&mut steering, &lab.byway, asked).unwrap();
        assert_eq!(attached.mode, mode);
        assert!(attached.fallback.is_none());
        assert_eq!(on_interface(&lab.byway), Some(shown));
        // Again, in place of itself.
        attach(&mut steering, &lab.byway, asked).unwrap();
        assert_eq!(on_interface(&lab.byway), Some(shown));
        drop(steering);
        assert_eq!(on_interface(&lab.byway), None);
    }
}

/// D10: what is asked for byway's addresses reaches byway (here: no socket, so it is counted as such); what
/// is the kernel's goes on as before.
#[test]
fn frames_of_a_kernel_are_sorted_in_both_modes() {
    if !is_root() {
        return;
    }
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let lab = lab();
        lab.byway.run(&format!("ip addr add 192.0.2.3/24 dev {BYWAY_INTERFACE}")).unwrap();
        let mut steering = Steering::load().unwrap();
        steering.add_address(BYWAY_IPV4.into()).unwrap();
        steering.add_address(BYWAY_IPV6.into()).unwrap();
        attach(&mut steering, &lab.byway, mode).unwrap();

        for address in [BYWAY_IPV4.into(), BYWAY_IPV6.into()] {
            let before = counter(&steering, "drop_no_socket");
            ask_for(&lab, address);
            soon("the kernel's question is byway's", || counter(&steering, "drop_no_socket") > before);
        }

        let listener = lab.byway.enter(|| TcpListener::bind("192.0.2.3:7").unwrap());
        lab.kernel.enter(|| TcpStream::connect("192.0.2.3:7").unwrap());
        listener.accept().unwrap();
        assert!(counter(&steering, "pass_not_ours") > 0);
    }
}

/// A plain program would cap the MTU of both ends at 3506.
#[test]
fn jumbo_frames_of_the_kernel_go_on_beside_a_native_program() {
    if !is_root() {
        return;
    }
    let veth = VethOptions { mtu: 9000, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, ..LabOptions::default() }).unwrap();
    lab.byway.run(&format!("ip addr add 192.0.2.3/24 dev {BYWAY_INTERFACE}")).unwrap();
    let mut steering = Steering::load().unwrap();
    attach(&mut steering, &lab.byway, AttachMode::Native).unwrap();

    let receiver = lab.byway.enter(|| UdpSocket::bind("192.0.2.3:9").unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    lab.kernel.enter(|| {
        let sender = UdpSocket::bind((KERNEL_IPV4, 0)).unwrap();
        sender.send_to(&[7; 8900], "192.0.2.3:9").unwrap();
    });
    assert_eq!(receiver.recv(&mut [0; 9000]).unwrap(), 8900);
}

#[test]
fn auto_falls_back_to_generic_and_says_why() {
    if !is_root() {
        return;
    }
    // The loopback driver has no XDP.
    let namespace = Namespace::new().unwrap();
    let mut steering = Steering::load().unwrap();
    let attached = namespace.enter(|| steering.attach(1, AttachMode::Auto)).unwrap();
    assert_eq!(attached.mode, Mode::Generic);
    let reason = attached.fallback.unwrap();
    assert!(matches!(reason, Error::NativeUnsupported { .. }), "{reason}");
    assert!(reason.to_string().starts_with("lo's driver has no native XDP"), "{reason}");

    let error = namespace.enter(|| steering.attach(1, AttachMode::Native)).unwrap_err();
    assert!(matches!(error, Error::NativeUnsupported { .. }), "{error}");
}

#[test]
fn too_few_queues_are_named() {
    if !is_root() {
        return;
    }
    let veth = VethOptions { queues: 2, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, ..LabOptions::default() }).unwrap();
    lab.byway.run(&format!("ethtool -L {BYWAY_INTERFACE} rx 1")).unwrap();
    let mut steering = Steering::load().unwrap();
    let error = attach(&mut steering, &lab.byway, AttachMode::Native).unwrap_err();
    assert!(matches!(error, Error::TooFewQueues { .. }), "{error}");
    assert!(error.to_string().contains("ethtool -L"), "{error}");
    assert_eq!(attach(&mut steering, &lab.byway, AttachMode::Auto).unwrap().mode, Mode::Generic);
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    if !is_root() {
        return;
    }
    let mut steering = Steering::load().unwrap();
    for mode in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
        let error = steering.attach(i32::MAX, mode).unwrap_err();
        assert!(matches!(error, Error::NoInterface { ifindex: i32::MAX }), "{error}");
    }
    let error = steering.check_vacant(i32::MAX).unwrap_err();
    assert!(matches!(error, Error::NoInterface { ifindex: i32::MAX }), "{error}");
}

/// D7: a program that outlives its process is refused and named, and the command in the message takes it off.
#[test]
fn a_left_over_program_is_refused_with_the_command_that_removes_it() {
    if !is_root() {
        return;
    }
    for (flags, mode) in [(XdpFlags::DRV_MODE, "native"), (XdpFlags::SKB_MODE, "generic")] {
        let lab = lab();
        let ifindex = lab.byway.ifindex(BYWAY_INTERFACE).unwrap() as i32;
        let other = Steering::load().unwrap();
        lab.byway.enter(|| Xdp::new(other.as_fd()).attach(ifindex, flags)).unwrap();
        drop(other);

        let mut steering = Steering::load().unwrap();
        for asked in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
            let Err(Error::Occupied { interface, occupant }) = attach(&mut steering, &lab.byway, asked)
            else {
                panic!("{asked:?} beside {mode} must be refused")
            };
            assert_eq!(interface, BYWAY_INTERFACE);
            assert!(occupant.program_id > 0 && occupant.link.is_none());
            assert_eq!(occupant.name.as_deref(), Some("steer"));
            let said = Error::Occupied { interface, occupant }.to_string();
            let (before, command) = said.split_once(": `").unwrap();
            assert!(before.contains(&format!("\"steer\", {mode}")), "{said}");
            let error = lab.byway.enter(|| steering.check_vacant(ifindex)).unwrap_err();
            assert_eq!(error.to_string(), said, "known beforehand");
            assert!(on_interface(&lab.byway).is_some());
            if asked == AttachMode::Generic {
                lab.byway.run(command.trim_end_matches('`')).unwrap();
            }
        }
        assert_eq!(on_interface(&lab.byway), None);
        lab.byway.enter(|| steering.check_vacant(ifindex)).unwrap();
        attach(&mut steering, &lab.byway, AttachMode::Auto).unwrap();
    }
}

#[test]
fn a_running_owner_is_refused_and_named() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let mut owner = Steering::load().unwrap();
    attach(&mut owner, &lab.byway, AttachMode::Native).unwrap();

    let mut second = Steering::load().unwrap();
    let error = attach(&mut second, &lab.byway, AttachMode::Auto).unwrap_err().to_string();
    let me = format!("stop pid {} (", std::process::id());
    assert!(error.contains("\"steer\", native") && error.contains(&me), "{error}");
    owner.detach();
    attach(&mut second, &lab.byway, AttachMode::Auto).unwrap();
}

/// Attaches to the interface of the namespace it is started in, says so, and waits to be killed.
#[test]
#[ignore = "part of a_killed_process_leaves_nothing, which starts it"]
fn hold_until_killed() {
    let mut steering = Steering::load().unwrap();
    let ifindex = std::env::var("BYWAY_TEST_IFINDEX").unwrap().parse().unwrap();
    steering.attach(ifindex, AttachMode::Native).unwrap();
    eprintln!("attached");
    loop {
        thread::park();
    }
}

/// P6, D6: after kill -9 the interface is the kernel's.
#[test]
fn a_killed_process_leaves_nothing() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder
        .args(["--exact", "--ignored", "--nocapture", "hold_until_killed"])
        .env("BYWAY_TEST_IFINDEX", lab.byway.ifindex(BYWAY_INTERFACE).unwrap().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut holder = lab.byway.spawn(&mut holder).unwrap();
    let mut lines = BufReader::new(holder.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "attached"));
    assert_eq!(on_interface(&lab.byway), Some("xdp"));

    // Meanwhile the owner can be named.
    let error =
        attach(&mut Steering::load().unwrap(), &lab.byway, AttachMode::Native).unwrap_err().to_string();
    assert!(error.contains(&format!("stop pid {} (", holder.id())), "{error}");

    holder.kill().unwrap();
    holder.wait().unwrap();
    soon("the program is gone", || on_interface(&lab.byway).is_none());
    attach(&mut Steering::load().unwrap(), &lab.byway, AttachMode::Native).unwrap();
}

#[test]
#[ignore = "part of without_capabilities_the_message_names_them, which starts it"]
fn load_without_capabilities() {
    let error = Steering::load().unwrap_err();
    assert!(matches!(error, Error::Permission { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("lacks CAP_NET_ADMIN and CAP_BPF and CAP_PERFMON; run it as root"), "{said}");
}

#[test]
fn without_capabilities_the_message_names_them() {
    if !is_root() {
        return;
    }
    let outcome = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "load_without_capabilities"])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output();
    match outcome {
        Err(error) => eprintln!("skipped: user 65534 cannot run this test's executable: {error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The peer goes away with the pair: the interface is gone, and so is the link; nothing hangs.
#[test]
fn an_interface_that_goes_away_takes_the_attachment_with_it() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let mut steering = Steering::load().unwrap();
    attach(&mut steering, &lab.byway, AttachMode::Native).unwrap();
    lab.kernel.run(&format!("ip link del {KERNEL_INTERFACE}")).unwrap();
    assert!(lab.byway.ifindex(BYWAY_INTERFACE).is_err());
    steering.detach();
}
