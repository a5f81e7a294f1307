//! Sends each datagram back to where it came from.

use crate::programs::{Outcome, number};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

/// The port of the echo protocol (RFC 862).
const PORT: u64 = 7;
/// The longest datagram of IPv4.
const DATAGRAM: usize = 65_507;

/// Takes a datagram and sends it back.
fn echo(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<()> {
    let (length, from) = socket.recv_from(buffer)?;
    socket.send_to(&buffer[..length], from)?;
    Ok(())
}

/// `udpecho [PORT]`: never returns once it serves.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let port = u16::try_from(number(arguments, 0, PORT)?)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    println!("udpecho: serves on port {port}");
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // What fails concerns one datagram: who sent it may be gone.
        let _ = echo(&socket, &mut buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_back() {
        let [server, client] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        client.connect(server.local_addr().unwrap()).unwrap();
        let mut buffer = vec![0; 2000];
        for length in [0, 1, 1472] {
            let sent = vec![7; length];
            client.send(&sent).unwrap();
            echo(&server, &mut buffer).unwrap();
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], sent);
        }
    }
}
