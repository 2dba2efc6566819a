//! Ends of connections: FIN and RST in both directions, on both ends, with the process.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener},
    os::fd::AsFd,
};

use rustix::net::sockopt::socket_cookie;

use crate::{
    fixture::{Leg, kernel, pair, reset, wait_for},
    serve::Serve,
};

const ECONNRESET: i32 = 104;

fn own_pid() -> u32 {
    std::process::id()
}

#[test]
fn serve_closes_with_fin() {
    let Some(mut kernel) = kernel() else { return };
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    let leg = Leg::open(&kernel, &mut serve);
    assert_eq!(kernel.socket(leg.cookie), None, "nothing has happened yet");
    assert_eq!(kernel.serve_end(&leg.tuple, leg.generation), None, "nothing has happened yet");

    serve.order("close");
    wait_for("FIN came in", || leg.dispatch_end(&kernel).fin_in.is_some());
    let (ours, serves) = (leg.dispatch_end(&kernel), leg.serve_end(&kernel));
    assert_eq!((ours.fin_out, ours.rst_in, ours.rst_out, ours.error), (None, None, None, None));
    assert_eq!(ours.closer, None, "a received FIN has the closer's context, which is not that of our socket");
    assert!(serves.fin_out.is_some() && serves.fin_out <= ours.fin_in, "{serves:?} {ours:?}");
    assert_eq!((serves.fin_in, serves.rst_in, serves.rst_out), (None, None, None));
    assert_eq!(serves.closer.as_ref().map(|task| task.pid), Some(serve.pid()));
    assert!(kernel.process(serve.pid()).is_none_or(|process| process.ended_at.is_none()));

    leg.stream.shutdown(Shutdown::Write).unwrap();
    wait_for("our FIN", || leg.dispatch_end(&kernel).closed.is_some());
    let (ours, serves) = (leg.dispatch_end(&kernel), leg.serve_end(&kernel));
    assert!(ours.fin_out > ours.fin_in, "{ours:?}");
    assert_eq!(ours.closer.as_ref().map(|task| task.pid), Some(own_pid()));
    // Whether a socket that was closed before still sees our FIN depends on whether TIME_WAIT has
    // replaced it by then.
    assert!(serves.fin_in.is_none() || serves.fin_in >= ours.fin_out, "{serves:?} {ours:?}");
    assert_eq!(kernel.lost().total(), 0);
}

#[test]
fn dispatch_closes_with_fin() {
    let Some(mut kernel) = kernel() else { return };
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    let leg = Leg::open(&kernel, &mut serve);
    leg.stream.shutdown(Shutdown::Write).unwrap();
    wait_for("FIN at serve", || leg.serve_end(&kernel).fin_in.is_some());
    let (ours, serves) = (leg.dispatch_end(&kernel), leg.serve_end(&kernel));
    assert!(ours.fin_out.is_some() && ours.fin_in.is_none(), "{ours:?}");
    assert_eq!(ours.closer.as_ref().map(|task| task.pid), Some(own_pid()));
    assert_eq!((serves.fin_out, serves.closer), (None, None));

    serve.order("close");
    wait_for("serve's FIN", || leg.dispatch_end(&kernel).fin_in.is_some());
    assert!(leg.dispatch_end(&kernel).fin_in > leg.dispatch_end(&kernel).fin_out);
    assert_eq!(leg.serve_end(&kernel).closer.map(|task| task.pid), Some(serve.pid()));
    assert_eq!((leg.dispatch_end(&kernel).rst_in, leg.dispatch_end(&kernel).error), (None, None));
}

#[test]
fn serve_resets_with_linger_and_with_unread_data() {
    let Some(mut kernel) = kernel() else { return };
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    for (orders, reason) in
        [(&["reset"][..], "tcp_state"), (&["await_byte", "close"][..], "tcp_abort_on_close")]
    {
        let mut leg = Leg::open(&kernel, &mut serve);
        // SO_LINGER with unread data counts as unread data.
        if orders.contains(&"await_byte") {
            leg.stream.write_all(b"unread").unwrap();
        }
        orders.iter().for_each(|order| serve.order(order));
        wait_for("RST came in", || leg.dispatch_end(&kernel).closed.is_some());
        let (ours, serves) = (leg.dispatch_end(&kernel), leg.serve_end(&kernel));
        assert!(ours.rst_in.is_some() && ours.fin_in.is_none() && ours.rst_out.is_none(), "{ours:?}");
        assert_eq!(ours.error.map(|(error, _)| error), Some(ECONNRESET));
        assert_eq!(ours.closer, None, "a received RST has no closer");
        assert!(serves.rst_out.is_some() && serves.fin_out.is_none(), "{serves:?}");
        assert_eq!(serves.closer.as_ref().map(|task| task.pid), Some(serve.pid()));
        // Named from 6.12 on.
        if let Some(named) = serves.rst_reason {
            assert_eq!(named, reason);
        }
    }
}

#[test]
fn dispatch_resets() {
    let Some(mut kernel) = kernel() else { return };
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    let leg = Leg::open(&kernel, &mut serve);
    reset(leg.stream.try_clone().unwrap());
    assert_eq!(kernel.socket(leg.cookie), None, "one of two descriptors is closed: nothing has happened yet");
    let (cookie, tuple, generation) = (leg.cookie, leg.tuple, leg.generation);
    drop(leg);
    let serves = || kernel.serve_end(&tuple, generation).unwrap_or_default();
    wait_for("RST at serve", || serves().rst_in.is_some());
    assert_eq!((serves().rst_out, serves().closer), (None, None));
    let ours = kernel.socket(cookie).unwrap_or_default();
    assert!(ours.rst_out.is_some() && ours.rst_in.is_none() && ours.fin_out.is_none(), "{ours:?}");
    assert_eq!(ours.closer.as_ref().map(|task| task.pid), Some(own_pid()));
}

#[test]
fn the_downstream_leg_is_found_by_its_cookie() {
    let Some(mut kernel) = kernel() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    kernel.watch(&[listener.local_addr().unwrap().port()], &[], &[]).unwrap();
    let trace = |cookie: u64| kernel.socket(cookie).unwrap_or_default();

    let (accepted, client) = pair(&listener);
    let cookie = socket_cookie(accepted.as_fd()).unwrap();
    drop(client);
    wait_for("the client's FIN", || trace(cookie).fin_in.is_some());
    assert_eq!((trace(cookie).rst_in, trace(cookie).fin_out), (None, None));
    drop(accepted);
    wait_for("our FIN", || trace(cookie).fin_out.is_some());
    assert_eq!(trace(cookie).closer.map(|task| task.pid), Some(own_pid()));

    let (accepted, client) = pair(&listener);
    let cookie = socket_cookie(accepted.as_fd()).unwrap();
    reset(client);
    wait_for("the client's RST", || trace(cookie).rst_in.is_some());
    assert_eq!((trace(cookie).fin_in, trace(cookie).closer), (None, None));

    // A socket without a cookie is not dispatch's.
    let remembered = kernel.remembered_sockets();
    let (accepted, client) = pair(&listener);
    drop((client, accepted));
    assert_eq!(kernel.remembered_sockets(), remembered);
}

#[test]
fn a_refused_connection_has_its_errno() {
    let Some(mut kernel) = kernel() else { return };
    use rustix::net::{AddressFamily, SocketType, connect, socket};
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    kernel.watch(&[], &[port], &[]).unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let cookie = socket_cookie(&socket).unwrap();
    assert!(connect(&socket, &SocketAddr::from(([127, 0, 0, 1], port))).is_err());
    let trace = kernel.socket(cookie).unwrap_or_default();
    assert_eq!(trace.error.map(|(error, _)| error), Some(111), "{trace:?}");
    assert!(trace.rst_in.is_some() && trace.closed.is_some(), "{trace:?}");
}

#[test]
fn a_reused_tuple_does_not_mix_connections() {
    let Some(mut kernel) = kernel() else { return };
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    let local = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut open = || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &local).unwrap();
        connect(&socket, &serve.address).unwrap();
        serve.order("accept");
        Leg::register(&kernel, socket.into())
    };
    let first = open();
    let (tuple, first_generation, first_cookie) = (first.tuple, first.generation, first.cookie);
    reset(first.stream);
    wait_for("the first is gone", || {
        kernel.serve_end(&tuple, first_generation).is_some_and(|end| end.closed.is_some())
    });
    assert_eq!(kernel.serve_generation(&tuple), first_generation, "available after its end");
    let second = open();
    assert_eq!(second.tuple, tuple);
    assert_ne!(second.generation, first_generation);
    assert_ne!(second.cookie, first_cookie);
    assert_eq!(kernel.serve_end(&tuple, second.generation), None, "the second is open");
    serve.order("close");
    wait_for("the second's FIN", || second.dispatch_end(&kernel).fin_in.is_some());
    let (one, two) = (kernel.serve_end(&tuple, first_generation).unwrap(), second.serve_end(&kernel));
    assert!(one.rst_in.is_some() && one.fin_out.is_none(), "{one:?}");
    assert!(two.fin_out.is_some() && two.rst_in.is_none(), "{two:?}");
}

#[test]
fn ipv4_ipv6_and_mapped_addresses_match() {
    let Some(mut kernel) = kernel() else { return };
    for (listen, connect) in [("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1"), ("127.0.0.1", "127.0.0.1")]
    {
        let mut serve = Serve::listening(listen);
        kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
        let to = SocketAddr::new(connect.parse().unwrap(), serve.address.port());
        let leg = Leg::open_to(&kernel, &mut serve, to);
        serve.order("close");
        wait_for("FIN came in", || leg.dispatch_end(&kernel).fin_in.is_some());
        let serves = leg.serve_end(&kernel);
        assert_eq!(serves.closer.as_ref().map(|task| task.pid), Some(serve.pid()), "{listen} {connect}");
    }
}
