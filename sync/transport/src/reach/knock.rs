//! Whether anything answers at a UDP address: one packet that every QUIC server answers, and what comes of it.
//!
//! The packet asks for a version of QUIC that there is none of. A server answers by naming those that it speaks, and
//! keeps nothing of it. The socket is connected, so that the operating system hands on what routers and the other
//! machine say of an address that cannot be reached.
//!
//! # Source
//! RFC 9000, sections 6 (version negotiation), 14.1 (1200 bytes) and 17.2.1 (its packet).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// What a server must have before it answers.
const PACKET_BYTES: usize = 1200;
/// A long header of any type.
const LONG_HEADER: u8 = 0xc0;
/// One of the versions that never will be: RFC 9000, section 15.
const NO_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
/// Bytes of each of the two names of a connection.
const NAME_BYTES: usize = 8;
/// Pauses before the packet is sent again, since each may be lost, and before silence is the answer.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_millis(700), Duration::from_millis(2_000)];
/// Time after which silence is the answer: all pauses together.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What came of it.
#[derive(Debug)]
pub(super) enum Knock {
    /// A QUIC server answered.
    Answered,
    /// Something else did.
    Foreign,
    /// The other machine, or one before it, says that nothing listens there.
    Closed,
    /// The way there is missing.
    NoRoute(io::Error),
    /// This machine does not let it out.
    Forbidden(io::Error),
    /// Nothing came back.
    Silent,
}

/// Asks at an address.
pub(super) async fn knock(target: SocketAddr, entropy: &mut Entropy) -> Knock {
    let (here, there): ([u8; NAME_BYTES], [u8; NAME_BYTES]) = (entropy.bytes(), entropy.bytes());
    let mut packet = vec![LONG_HEADER];
    packet.extend(NO_VERSION);
    for name in [there, here] {
        packet.push(8);
        packet.extend(name);
    }
    packet.resize(PACKET_BYTES, 0);
    let asked = async {
        let any: SocketAddr =
            if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        ask(&UdpSocket::bind(any).await?, target, &packet, |answer| is_answer(answer, &here, &there)).await
    };
    match asked.await {
        Ok(knock) => knock,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Knock::Closed,
            io::ErrorKind::PermissionDenied => Knock::Forbidden(error),
            _ => Knock::NoRoute(error),
        },
    }
}

/// Sends a packet until the answer comes back. Whatever else comes tells of a stranger, if no answer follows: it may
/// have been meant for whoever had this socket's port before.
async fn ask(
    socket: &UdpSocket,
    target: SocketAddr,
    packet: &[u8],
    is_answer: impl Fn(&[u8]) -> bool,
) -> io::Result<Knock> {
    socket.connect(target).await?;
    if socket.local_addr()? == target {
        // The port that the system gave away is the one that is asked for, so nobody else has it.
        return Ok(Knock::Closed);
    }
    let mut received = [0; PACKET_BYTES];
    let mut silence = Knock::Silent;
    for pause in PAUSES {
        socket.send(packet).await?;
        let listened = timeout(pause, async {
            loop {
                let length = socket.recv(&mut received).await?;
                if received.get(..length).is_some_and(&is_answer) {
                    return io::Result::Ok(());
                }
                silence = Knock::Foreign;
            }
        });
        if let Ok(heard) = listened.await {
            return heard.map(|()| Knock::Answered);
        }
    }
    Ok(silence)
}

/// Says whether a packet is the answer: no version, and the two names the other way round.
fn is_answer(packet: &[u8], here: &[u8], there: &[u8]) -> bool {
    let Some((first, rest)) = packet.split_first() else { return false };
    let name = |name: &[u8]| [&[8], name].concat();
    let expected = [vec![0; 4], name(here), name(there)].concat();
    first & 0x80 != 0 && rest.starts_with(&expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_given_the_port_it_asks_at_hears_nobody() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let itself = socket.local_addr().unwrap();
        let knock = ask(&socket, itself, b"anybody?", |_| true).await.unwrap();
        assert!(matches!(knock, Knock::Closed), "{knock:?}");
    }

    #[tokio::test]
    async fn a_stray_packet_before_the_answer_is_no_answer_and_no_stranger() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let answering = async {
            let mut packet = [0; 16];
            let (_, from) = server.recv_from(&mut packet).await.unwrap();
            server.send_to(b"stray", from).await.unwrap();
            server.send_to(b"answer", from).await.unwrap();
        };
        let target = server.local_addr().unwrap();
        let asking = ask(&socket, target, b"anybody?", |packet| packet == b"answer");
        let (knock, ()) = tokio::join!(asking, answering);
        assert!(matches!(knock, Ok(Knock::Answered)), "{knock:?}");
    }
}
