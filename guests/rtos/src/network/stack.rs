//! ARP and ICMP by smoltcp: one frame in, at most one out.

use pc::cpu;
use rtos::net::{FRAME_MAX, Mac, settings::Settings};
use smoltcp::{
    iface::{Config, Interface, SocketSet, SocketStorage},
    phy::{self, Device, DeviceCapabilities, Medium},
    time::Instant,
    wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr},
};

use crate::system;

/// The protocols' state.
pub(super) struct Stack {
    interface: Interface,
    /// There are none: the server takes its datagrams before they come here.
    sockets: SocketSet<'static>,
}

impl Stack {
    /// Begins with an address of our own, and perhaps a router.
    pub(super) fn new(settings: &Settings, mac: Mac) -> Self {
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = cpu::tsc();
        let mut nothing = Frame {
            received: None,
            to_send: &mut [0; FRAME_MAX],
            length: None,
        };
        let mut interface = Interface::new(config, &mut nothing, now());
        let own = Ipv4Cidr::new(Ipv4Address::from(settings.address), settings.prefix);
        interface.update_ip_addrs(|addresses| {
            // There is room for the first.
            let _ = addresses.push(IpCidr::Ipv4(own));
        });
        if let Some(gateway) = settings.gateway {
            // As for the address.
            let _ = interface
                .routes_mut()
                .add_default_ipv4_route(Ipv4Address::from(gateway));
        }
        let none: &'static mut [SocketStorage<'static>] = &mut [];
        Self {
            interface,
            sockets: SocketSet::new(none),
        }
    }

    /// Takes a frame; the length of the one that is to be sent for it.
    pub(super) fn handle(&mut self, frame: &[u8], to_send: &mut [u8; FRAME_MAX]) -> Option<usize> {
        let mut frame = Frame {
            received: Some(frame),
            to_send,
            length: None,
        };
        self.interface
            .poll_ingress_single(now(), &mut frame, &mut self.sockets);
        frame.length
    }
}

fn now() -> Instant {
    Instant::from_millis(system::milliseconds() as i64)
}

/// A device that receives one frame, and sends one.
struct Frame<'a> {
    received: Option<&'a [u8]>,
    to_send: &'a mut [u8; FRAME_MAX],
    length: Option<usize>,
}

struct Received<'a>(&'a [u8]);

struct ToSend<'a> {
    place: &'a mut [u8; FRAME_MAX],
    length: &'a mut Option<usize>,
}

impl Device for Frame<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = ToSend<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, ToSend<'_>)> {
        let frame = self.received.take()?;
        let to_send = ToSend {
            place: self.to_send,
            length: &mut self.length,
        };
        Some((Received(frame), to_send))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, user: F) -> R {
        user(self.0)
    }
}

impl phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, user: F) -> R {
        // No longer than the largest unit of transmission, which was told.
        let result = user(&mut self.place[..length]);
        *self.length = Some(length);
        result
    }
}
