//! [`Proto`]: protobuf's wire format, as far as OTLP and profiles need it.

/// A message that is being written. Numbers of fields come from the protocol's own files.
pub(crate) struct Proto(Vec<u8>);

impl Proto {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    pub(crate) fn int(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if field < 16 && bytes.len() < 128 {
            // One byte each, as nearly always.
            self.0.extend_from_slice(&[(field << 3 | 2) as u8, bytes.len() as u8]);
        } else {
            self.key(field, 2);
            self.varint(bytes.len() as u64);
        }
        self.0.extend_from_slice(bytes);
    }

    /// Fields that are written already.
    pub(crate) fn raw(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    pub(crate) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A message inside of this one. Its length stands before it in a varint of four bytes whatever it is, which readers
    /// accept, so that nothing has to be moved or measured first.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, 2);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        write(self);
        let length = self.0.len() - at - 4;
        for (index, byte) in self.0[at..at + 4].iter_mut().enumerate() {
            let more = if index < 3 { 0x80 } else { 0 };
            *byte = (length >> (7 * index)) as u8 & 0x7f | more;
        }
    }
}
