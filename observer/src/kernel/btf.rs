//! Where the kernel's own structures have their fields: the types that it tells of itself, in the BTF format
//! (Documentation/bpf/btf.rst). Read once, when the probes are loaded.

use std::{collections::HashMap, fs, path::Path};

use super::formats::ABSENT;

/// Where a kernel tells of its types.
pub(super) const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Global of the kernel side, structure, field: what says how a process ended.
const OFFSETS: [(&str, &str, &str); 6] = [
    ("TASK_EXIT_CODE", "task_struct", "exit_code"),
    ("TASK_SIGNAL", "task_struct", "signal"),
    ("SIGNAL_LIVE", "signal_struct", "live"),
    ("SIGNAL_FLAGS", "signal_struct", "flags"),
    ("SIGNAL_EXIT_CODE", "signal_struct", "group_exit_code"),
    ("SIGNAL_OOM_MM", "signal_struct", "oom_mm"),
];

/// Structures within structures without a name that are looked into.
const DEPTH: u32 = 8;

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// Offset of each entry of [`OFFSETS`], in its order, and why some are absent.
pub(super) fn offsets(types: &Path) -> (Vec<(&'static str, u32)>, Option<String>) {
    let (bytes, mut why) = match fs::read(types) {
        Ok(bytes) => (bytes, None),
        Err(error) => (Vec::new(), Some(format!("{}: {error}", types.display()))),
    };
    let known = Types::read(&bytes);
    if known.is_none() && why.is_none() {
        why = Some(format!("{} cannot be read as BTF", types.display()));
    }
    let offsets = OFFSETS.map(|(global, structure, field)| {
        let offset = known.as_ref().and_then(|types| types.offset(structure, field));
        if offset.is_none() && why.is_none() {
            why = Some(format!("this kernel has no {structure}.{field}"));
        }
        (global, offset.unwrap_or(ABSENT))
    });
    (offsets.to_vec(), why)
}

/// A structure or union.
#[derive(Clone, Copy)]
struct Composite {
    /// Where its members begin.
    members: usize,
    count: usize,
    /// Whether offsets share their word with the size of a bit field.
    has_bits: bool,
}

/// Structures and unions by the ids of their types.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    composites: HashMap<u32, Composite>,
    named: HashMap<&'a [u8], u32>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> Types<'a> {
    /// Goes through all types once; none if the bytes are not what they should be.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        // struct btf_header: magic, version, flags, its length; offset and length of types and of strings after it.
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let [header, types_at, types, strings_at, strings] =
            [4, 8, 12, 16, 20].map(|at| word(bytes, at).map(|number| number as usize));
        let part = |at: usize, length: usize| bytes.get(header?.checked_add(at)?..)?.get(..length);
        let (types, strings) = (part(types_at?, types?)?, part(strings_at?, strings?)?);
        let mut all = Self { types, strings, composites: HashMap::new(), named: HashMap::new() };
        let (mut at, mut id) = (0, 1);
        while at < types.len() {
            // struct btf_type: name, then kind and number of members, then size or type.
            let (name, info) = (word(types, at)?, word(types, at + 4)?);
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            at += 12;
            if matches!(kind, STRUCT | UNION) {
                let composite = Composite { members: at, count, has_bits: info >> 31 == 1 };
                all.composites.insert(id, composite);
                if kind == STRUCT
                    && let Some(name) = all.name(name)
                {
                    all.named.entry(name).or_insert(id);
                }
            }
            at += match kind {
                // Integers, variables, tags of declarations: one word more.
                1 | 14 | 17 => 4,
                // Arrays.
                3 => 12,
                // Structures, unions, sections, enumerations of 64 bits: three words for each member.
                STRUCT | UNION | 15 | 19 => 12 * count,
                // Enumerations, prototypes: two.
                6 | 13 => 8 * count,
                // Pointers, forward declarations, other names, qualifiers, functions, floats, tags of types.
                2 | 7..=12 | 16 | 18 => 0,
                // The length of what is not known is not known either.
                _ => return None,
            };
            id += 1;
        }
        Some(all)
    }

    /// A name; none if it is empty.
    fn name(&self, at: u32) -> Option<&'a [u8]> {
        let name = self.strings.get(at as usize..)?.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then_some(name)
    }

    /// Where a structure has a field, in bytes.
    fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let bits = self.bits(*self.named.get(structure.as_bytes())?, field.as_bytes(), DEPTH)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn bits(&self, id: u32, field: &[u8], depth: u32) -> Option<u32> {
        let composite = self.composites.get(&id)?;
        (0..composite.count).find_map(|member| {
            // struct btf_member: name, type, offset.
            let at = composite.members + 12 * member;
            let (kind, offset) = (word(self.types, at + 4)?, word(self.types, at + 8)?);
            let offset = if composite.has_bits { offset & 0x00ff_ffff } else { offset };
            match self.name(word(self.types, at)?) {
                Some(name) => (name == field).then_some(offset),
                None => offset.checked_add(self.bits(kind, field, depth.checked_sub(1)?)?),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member: name, type, bits.
    type Member<'a> = (&'a str, u32, u32);

    /// As a kernel tells types, each given by name, kind, flag and members.
    fn told(types: &[(&str, u32, bool, &[Member<'_>])]) -> Vec<u8> {
        let mut strings = vec![0];
        let mut named = |name: &str| {
            let at = if name.is_empty() { 0 } else { strings.len() as u32 };
            if at > 0 {
                strings.extend(name.bytes().chain([0]));
            }
            at
        };
        let mut words = Vec::new();
        for (name, kind, flag, members) in types {
            let info = u32::from(*flag) << 31 | kind << 24 | members.len() as u32;
            words.extend([named(name), info, 0]);
            for (name, kind, bits) in *members {
                words.extend([named(name), *kind, *bits]);
            }
        }
        let types: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for number in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn fields_are_found_in_structures_within() {
        let bytes = told(&[
            ("", 2, false, &[]),
            ("task_struct", STRUCT, true, &[("state", 1, 0), ("", 3, 64), ("flag", 1, (1 << 24) + 201)]),
            ("", STRUCT, false, &[("pid", 1, 32), ("", 4, 64)]),
            ("", UNION, false, &[("exit_code", 1, 0)]),
            ("other", STRUCT, false, &[("task_struct", 1, 0)]),
        ]);
        let types = Types::read(&bytes).unwrap();
        let offset = |field| types.offset("task_struct", field);
        assert_eq!((offset("state"), offset("pid"), offset("exit_code")), (Some(0), Some(12), Some(16)));
        assert_eq!((offset("flag"), offset("signal"), types.offset("x", "state")), (None, None, None));
    }

    #[test]
    fn what_is_no_such_thing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        let why = || {
            let (offsets, why) = offsets(&path);
            assert!(offsets.iter().all(|(_, offset)| *offset == ABSENT));
            why.unwrap()
        };
        assert!(why().contains("vmlinux: No such file"));
        let bytes = told(&[("task_struct", STRUCT, false, &[("pid", 1, 32)])]);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(why(), "this kernel has no task_struct.exit_code");
        for cut in 0..bytes.len() {
            let _none_or_less = Types::read(&bytes[..cut]);
        }
        fs::write(&path, &bytes[..20]).unwrap();
        assert!(why().contains("cannot be read as BTF"));
        let unknown = told(&[("x", 31, false, &[])]);
        assert!(Types::read(&unknown).is_none());
    }
}
