//! Products of small matrices as plain loops, a tile of the result at a time: what is added up stays in registers.

use super::element::Element;
use super::vector::multiply_add;

/// Rows by columns that are added up side by side: half of AVX2's registers.
pub(super) const TILE_ROWS: usize = 4;
pub(super) const TILE_COLUMNS: usize = 16;

pub(super) type Tile = [[f32; TILE_COLUMNS]; TILE_ROWS];

/// Adds the product of `a` [rows, stride] and `b` [stride, width] to `c` [rows, width], whose rows are whole tiles. Only the first
/// `depth(row)` numbers count of rows of `a` from the tile's first `row` on: what is behind them is zeros.
#[inline(always)]
pub(super) fn add_product<const FMA: bool>(
    a: &[f32],
    b: &[f32],
    stride: usize,
    depth: impl Fn(usize) -> usize,
    c: &mut [f32],
    width: usize,
) {
    for column in (0..width).step_by(TILE_COLUMNS) {
        for (index, c) in c.chunks_exact_mut(TILE_ROWS * width).enumerate() {
            let first = index * TILE_ROWS;
            let rows = std::array::from_fn(|row| &a[(first + row) * stride..][..depth(first)]);
            let mut tile = load(&c[column..], width);
            add_to_tile::<FMA, f32>(&rows, &b[column..], width, &mut tile);
            store(&tile, &mut c[column..], width);
        }
    }
}

/// Adds the product of `rows` and the columns that `b` begins with, whose rows lie `width` apart.
#[inline(always)]
pub(super) fn add_to_tile<const FMA: bool, B: Element>(
    rows: &[&[f32]; TILE_ROWS],
    b: &[B],
    width: usize,
    tile: &mut Tile,
) {
    let depth = rows[0].len();
    let rows = rows.map(|row| &row[..depth]);
    let mut held = *tile;
    for (d, b) in b.chunks(width).take(depth).enumerate() {
        let b: &[B; TILE_COLUMNS] = b.first_chunk().expect("Invariant: a tile's columns");
        let b = b.map(B::widen);
        for (held, row) in held.iter_mut().zip(rows) {
            let x = row[d];
            for column in 0..TILE_COLUMNS {
                held[column] = multiply_add::<FMA>(x, b[column], held[column]);
            }
        }
    }
    *tile = held;
}

/// The tile that `c` begins with, whose rows lie `width` apart.
#[inline(always)]
pub(super) fn load(c: &[f32], width: usize) -> Tile {
    std::array::from_fn(|row| c[row * width..][..TILE_COLUMNS].try_into().expect("Invariant: a tile's columns"))
}

#[inline(always)]
pub(super) fn store(tile: &Tile, c: &mut [f32], width: usize) {
    for (row, tile) in tile.iter().enumerate() {
        c[row * width..][..TILE_COLUMNS].copy_from_slice(tile);
    }
}
