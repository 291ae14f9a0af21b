//! fry's files, compiled into the binary.

const FILES: &[(&str, &[u8])] = &[];

pub(super) fn file(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes)
}
