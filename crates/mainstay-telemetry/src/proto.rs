//! [`Proto`]: protobuf's wire format, as far as OTLP and profiles need it.

/// A message that is being written. Numbers of fields come from the protocol's own files.
pub(crate) struct Proto(Vec<u8>);

impl Proto {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// An empty one in the place of what `used` held.
    pub(crate) fn reusing(mut used: Vec<u8>) -> Self {
        used.clear();
        Self(used)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Fields that are written already.
    pub(crate) fn raw(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
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
        self.head(field, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// What stands before `length` bytes, of text or of a message.
    #[inline(always)] // the field is known where it is written, and most of this is gone
    pub(crate) fn head(&mut self, field: u32, length: usize) {
        if field < 16 && length < 128 {
            // One byte each, as nearly always.
            self.0.extend_from_slice(&[(field << 3 | 2) as u8, length as u8]);
        } else {
            self.key(field, 2);
            self.varint(length as u64);
        }
    }

    pub(crate) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A message inside of this one.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let open = self.open(field);
        write(self);
        open.close(&mut self.0);
    }

    /// Begins a message that everything belongs to until it is closed. Its length stands before it in a varint of four bytes
    /// whatever it is, which readers accept, so that nothing has to be moved or measured first.
    pub(crate) fn open(&mut self, field: u32) -> Open {
        self.key(field, 2);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        Open(at)
    }
}

/// Where the length of a message belongs that has been begun.
#[derive(Clone, Copy)]
pub(crate) struct Open(usize);

impl Open {
    /// Ends the message where `bytes` end now.
    pub(crate) fn close(self, bytes: &mut [u8]) {
        let length = bytes.len() - self.0 - 4;
        for (index, byte) in bytes[self.0..self.0 + 4].iter_mut().enumerate() {
            let more = if index < 3 { 0x80 } else { 0 };
            *byte = (length >> (7 * index)) as u8 & 0x7f | more;
        }
    }
}

/// How many bytes a varint of `value` has.
pub(crate) fn varint_size(value: u64) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

/// How many bytes [`Proto::bytes`] writes for `length` bytes in a field below 16.
pub(crate) fn bytes_size(length: usize) -> usize {
    1 + varint_size(length as u64) + length
}
