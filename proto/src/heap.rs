//! The heap memory of messages. The encoded size says little about it: a message in memory has room for all of its fields, present
//! or not, so a Revision of 150 encoded bytes takes 2,300.

use std::{collections::BTreeMap, mem::size_of};

use crate::v1::{int_or_string, *};

/// A tree's nodes are about three quarters full.
const TREE: (usize, usize) = (4, 3);

/// Something that may own memory on the heap.
pub trait Heap {
    /// The bytes that it owns there; nearly, where the collections of the standard library do not tell.
    fn heap(&self) -> usize;
}

macro_rules! nothing {
    ($($type:ty)*) => {
        $(impl Heap for $type {
            fn heap(&self) -> usize {
                0
            }
        })*
    };
}
nothing!(bool u8 i32 i64 u32 u64 f32 f64);

impl Heap for String {
    fn heap(&self) -> usize {
        self.capacity()
    }
}

impl<T: Heap> Heap for Option<T> {
    fn heap(&self) -> usize {
        self.as_ref().map_or(0, Heap::heap)
    }
}

impl<T: Heap> Heap for Vec<T> {
    fn heap(&self) -> usize {
        self.capacity() * size_of::<T>() + self.iter().map(Heap::heap).sum::<usize>()
    }
}

impl<K: Heap, V: Heap> Heap for BTreeMap<K, V> {
    fn heap(&self) -> usize {
        /// Entries of a node, which a tree has from the first entry on.
        const NODE: usize = 11;
        let entry = size_of::<K>() + size_of::<V>();
        let nodes = match self.len() {
            0 => 0,
            1..=NODE => NODE,
            many => many * TREE.0 / TREE.1,
        };
        let own = self.iter().map(|(key, value)| key.heap() + value.heap());
        nodes * entry + own.sum::<usize>()
    }
}

impl Heap for IntOrString {
    fn heap(&self) -> usize {
        match &self.value {
            Some(int_or_string::Value::String(text)) => text.heap(),
            _ => 0,
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/heap.rs"));
