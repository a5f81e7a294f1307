//! The switch against a plain model of one.

use super::*;

use std::collections::{BTreeSet, HashMap};

/// A step of the random run.
#[derive(Clone, Debug)]
struct Step {
    from: usize,
    source: u8,
    destination: u8,
    tag: Option<u16>,
    passes: u64,
}

/// What the model knows: the VLAN of each port's frames without a tag, those with, and where stations are.
struct Model {
    untagged: Vec<Option<u16>>,
    tagged: Vec<BTreeSet<u16>>,
    stations: HashMap<(u8, u16), (usize, u64)>,
}

impl Model {
    fn forward(&mut self, step: &Step, now: u64) -> Vec<(usize, Option<u16>)> {
        let within = |port: usize, vlan: u16| {
            self.untagged[port] == Some(vlan) || self.tagged[port].contains(&vlan)
        };
        let vlan = match step.tag {
            Some(vlan) if vlan != 0 => Some(vlan).filter(|vlan| within(step.from, *vlan)),
            _ => self.untagged[step.from],
        };
        let Some(vlan) = vlan else { return Vec::new() };
        let known = self.stations.get(&(step.destination, vlan)).copied();
        let known = known.filter(|(_, seen)| now - seen < AGEING && step.destination != 0);
        // The source is learnt first.
        let known = if step.destination == step.source {
            Some((step.from, now))
        } else {
            known
        };
        self.stations.insert((step.source, vlan), (step.from, now));
        (0..self.untagged.len())
            .filter(|port| *port != step.from && within(*port, vlan))
            .filter(|port| known.is_none_or(|(place, _)| place == *port))
            .map(|port| (port, self.tagged[port].contains(&vlan).then_some(vlan)))
            .collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tag = prop_oneof![
        3 => Just(None),
        3 => (0u16..5).prop_map(Some),
    ];
    let passes = prop_oneof![20 => 0u64..HZ, 1 => 0..2 * AGEING];
    let step = (0usize..5, 1u8..6, 0u8..6, tag, passes).prop_map(
        |(from, source, destination, tag, passes)| Step {
            from,
            source,
            destination,
            tag,
            passes,
        },
    );
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn it_does_what_a_plain_model_does(
        untagged in prop::collection::vec(prop::option::of(1u16..4), 5),
        tagged in prop::collection::vec(prop::collection::btree_set(1u16..5, 0..4), 5),
        steps in steps(),
    ) {
        let mut switch = switch();
        let mut model = Model { untagged, tagged, stations: HashMap::new() };
        let mut ids = Vec::new();
        for port in 0..5 {
            if let Some(vlan) = model.untagged[port] {
                model.tagged[port].remove(&vlan);
            }
            ids.push(add(&mut switch, PortConfig {
                untagged: model.untagged[port].map(vlan),
                tagged: model.tagged[port].iter().copied().map(vlan).collect(),
                ..PortConfig::default()
            }));
        }
        let mut now = 0;
        for step in steps {
            now += step.passes;
            let to = match step.destination {
                0 => MacAddress::BROADCAST,
                number => station(number),
            };
            let head = head(to, station(step.source), step.tag);
            let way = switch.forward(ids[step.from], &head, 60, now);
            let expected = model.forward(&step, now);
            let found = leaves(&way, &head);
            prop_assert_eq!(found.len(), expected.len());
            for ((port, bytes), (place, tag)) in found.iter().zip(expected) {
                prop_assert_eq!(*port, place);
                let tag = tag.map(|vlan| vlan | step.tag.unwrap_or(0) & 0xE000);
                prop_assert_eq!(bytes, &super::head(to, station(step.source), tag));
            }
        }
    }
}
