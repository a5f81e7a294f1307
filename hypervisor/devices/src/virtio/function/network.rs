//! What a network card's function does beyond others: it lends its receive queues to the world, and hears from it.

use super::super::Fault;
use super::super::model::Model;
use super::super::transport::Interrupts;
use super::Function;
use crate::pc::Effects;

impl Function {
    /// Which of the board's network cards it is, if it is one.
    pub(crate) const fn nic(&self) -> Option<u8> {
        match &self.model {
            Model::Net(net) => Some(net.nic()),
            Model::Block(_) | Model::Console(_) | Model::Entropy(_) => None,
        }
    }

    /// Lends what the world works on while a driver drives the device, or takes it back.
    pub(crate) fn lend(&mut self, effects: &mut impl Effects) {
        let live = self.live();
        let Model::Net(net) = &mut self.model else {
            return;
        };
        if !live {
            return net.take_back(&mut self.transport.queues, effects);
        }
        let agreed = self.transport.agreement();
        if let Err(fault) = net.lend(&self.transport.queues, agreed, effects) {
            self.stop(fault, effects);
        }
    }

    /// Takes back what the world works on.
    pub(crate) fn take_back(&mut self, effects: &mut impl Effects) {
        if let Model::Net(net) = &mut self.model {
            net.take_back(&mut self.transport.queues, effects);
        }
    }

    /// Frames were received into these queues of a network card, a bit for each; or one of its rings is broken.
    pub(crate) fn received(
        &mut self,
        queues: u32,
        fault: Option<Fault>,
        effects: &mut impl Effects,
    ) {
        if !self.live() {
            return;
        }
        if let Some(fault) = fault {
            self.take_back(effects);
            if let Model::Net(net) = &self.model
                && net.broken()
            {
                return self.stop(fault, effects);
            }
            // That was before the driver reset the device.
            self.lend(effects);
        }
        for pair in (0..u32::BITS).filter(|pair| queues & 1 << pair != 0) {
            if let Some(queue) = self.transport.queues.get(2 * pair as usize) {
                self.interrupt(Interrupts::QUEUE, queue.vector);
            }
        }
    }

    /// The link of a network card comes or goes.
    pub(crate) fn set_link(&mut self, up: bool) {
        if let Model::Net(net) = &mut self.model
            && net.set_link(up)
        {
            self.configuration_changed();
        }
    }

    /// Asks the driver of a network card to announce itself; whether it will.
    pub(crate) fn announce(&mut self) -> bool {
        let agreed = self.transport.agreement();
        let live = self.live();
        let Model::Net(net) = &mut self.model else {
            return false;
        };
        let will = live && net.announce(agreed);
        if will {
            self.configuration_changed();
        }
        will
    }

    /// Frames that a network card dropped because they cannot be sent.
    pub(crate) fn malformed(&self) -> u64 {
        match &self.model {
            Model::Net(net) => net.malformed(),
            Model::Block(_) | Model::Console(_) | Model::Entropy(_) => 0,
        }
    }
}
