//! Tensors as slices: only here raw memory of libtorch's is touched.

use tch::{Device, Kind, Tensor};

use super::super::pages::ask_for_huge;

/// A number that tensors hold.
pub(super) trait Number: Copy + Send + Sync + 'static {
    const KIND: Kind;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;
}

impl Number for u8 {
    const KIND: Kind = Kind::Uint8;
}

/// A tensor on the CPU whose numbers lie in one piece, row by row.
pub(super) struct Matrix<'t, T> {
    pub numbers: &'t [T],
    pub columns: usize,
}

impl<'t, T: Number> Matrix<'t, T> {
    /// `None` for a tensor on another device, of another type, in pieces, or without numbers. All dimensions but the last
    /// count as rows.
    pub fn of(tensor: &'t Tensor) -> Option<Matrix<'t, T>> {
        let columns = *tensor.size().last()? as usize;
        let len = tensor.numel();
        if tensor.device() != Device::Cpu || tensor.kind() != T::KIND || !tensor.is_contiguous() || len == 0 {
            return None;
        }
        // Safety: so many numbers of that type lie there, for as long as the tensor is borrowed.
        let numbers = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), len) };
        Some(Matrix { numbers, columns })
    }

    pub fn rows(&self) -> usize {
        self.numbers.len() / self.columns
    }

    pub fn row(&self, row: usize) -> &'t [T] {
        &self.numbers[row * self.columns..(row + 1) * self.columns]
    }
}

/// A tensor [rows, columns] that several threads fill, each its own part.
pub(super) struct Output<T> {
    tensor: Tensor,
    numbers: *mut T,
    rows: usize,
    columns: usize,
}

// Safety: the tensor is only touched by whoever owns the output; what is written is for those who write to keep apart.
unsafe impl<T: Send> Sync for Output<T> {}

impl<T: Number> Output<T> {
    pub fn new(rows: usize, columns: usize) -> Output<T> {
        let tensor = Tensor::empty([rows as i64, columns as i64], (T::KIND, Device::Cpu));
        Output { numbers: tensor.data_ptr().cast(), tensor, rows, columns }
    }

    /// For what is kept and read often, before anything is written.
    pub fn ask_for_huge_pages(&self) {
        ask_for_huge(&self.tensor);
    }

    /// All numbers, to be written: what they are before is not known.
    pub fn numbers_mut(&mut self) -> &mut [T] {
        // Safety: so many numbers have their place there; any bits are a number.
        unsafe { std::slice::from_raw_parts_mut(self.numbers, self.rows * self.columns) }
    }

    /// Where `len` numbers from (row, column) on are written.
    ///
    /// # Safety
    /// Nobody else writes to the same place, and nobody reads it before all is written.
    #[inline]
    pub unsafe fn place(&self, row: usize, column: usize, len: usize) -> *mut T {
        assert!(row < self.rows && column + len <= self.columns);
        // Safety: it was just checked.
        unsafe { self.numbers.add(row * self.columns + column) }
    }

    /// Once every number is written.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }
}

/// The numbers of a tensor on the CPU that lie in one piece, to be changed in place.
pub(super) fn numbers_mut<T: Number>(tensor: &mut Tensor) -> Option<&mut [T]> {
    let len = Matrix::<T>::of(tensor)?.numbers.len();
    // Safety: so many numbers of that type lie there, and the tensor is borrowed for as long.
    Some(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) })
}
