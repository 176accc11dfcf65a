/// Counts 64-bit hashes: open addressing over one flat array that is kept from text to text.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    mask: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u64,
    count: u32,
    seen: bool,
}

impl Table {
    /// Forgets everything and makes room for so many different hashes.
    pub(crate) fn clear(&mut self, hashes: usize) {
        let size = (hashes * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(size, Slot::default());
        self.mask = size - 1;
    }

    /// Counts a hash once more; gives its slot and how often it was counted before.
    pub(crate) fn count(&mut self, hash: u64) -> (u32, u32) {
        // 0 marks an empty slot.
        let hash = hash.max(1);
        let mut at = hash as usize & self.mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.hash == hash || slot.hash == 0 {
                slot.hash = hash;
                slot.count = slot.count.saturating_add(1);
                return (at as u32, slot.count - 1);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// How often the hash of a slot was counted.
    pub(crate) fn counted(&self, slot: u32) -> u32 {
        self.slots[slot as usize].count
    }

    /// Marks a slot; tells whether it was marked before.
    pub(crate) fn mark(&mut self, slot: u32) -> bool {
        std::mem::replace(&mut self.slots[slot as usize].seen, true)
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn counts_survive_collisions_and_zero() {
        let mut table = Table::default();
        for round in 0..3 {
            table.clear(100);
            for hash in 0..100u64 {
                // All in the same slot of a table of 256.
                let (slot, before) = table.count(hash * 256);
                assert_eq!((before, table.counted(slot)), (0, 1), "{round} {hash}");
            }
            let (slot, before) = table.count(0);
            assert_eq!((before, table.counted(slot)), (1, 2));
            assert!(!table.mark(slot));
            assert!(table.mark(slot));
        }
    }
}
