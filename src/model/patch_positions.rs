//! Where a picture's patches lie, in the order in which they come: block by block of those that become one token.

use tch::{Device, Tensor};

use crate::engine::Grid;

/// The learned table of positions, a square, and the blocks of patches that are merged.
pub(super) struct Table {
    pub side: usize,
    pub merge: usize,
}

/// Positions of the patches of some pictures, one picture after the other.
pub(super) struct PatchPositions {
    pub rows: Tensor,    // [patches], fp32
    pub columns: Tensor, // [patches], fp32
    /// The four entries of the table around each patch.
    pub taps: Tensor, // [patches, 4], i64
    pub weights: Tensor, // [patches, 4], fp32
}

impl PatchPositions {
    pub fn new(grids: impl Iterator<Item = Grid>, table: &Table, device: Device) -> PatchPositions {
        let (mut places, mut taps, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let patches = grids.flat_map(|grid| in_block_order(grid, table.merge).map(move |place| (grid, place)));
        for (grid, (row, column)) in patches {
            places.extend([row as f32, column as f32]);
            let across = taps_along(row, grid.height, table.side);
            let along = taps_along(column, grid.width, table.side);
            for (row_tap, row_weight) in across {
                for (column_tap, column_weight) in along {
                    taps.push((row_tap * table.side + column_tap) as i64);
                    weights.push(row_weight * column_weight);
                }
            }
        }
        let upload = |x: Tensor, width: i64| x.view((-1, width)).to_device_(device, x.kind(), true, false);
        let places = upload(Tensor::from_slice(&places), 2);
        PatchPositions {
            rows: places.select(1, 0),
            columns: places.select(1, 1),
            taps: upload(Tensor::from_slice(&taps), 4),
            weights: upload(Tensor::from_slice(&weights), 4),
        }
    }
}

/// (row, column) of each patch: blocks row by row, and within a block again row by row.
fn in_block_order(grid: Grid, merge: usize) -> impl Iterator<Item = (usize, usize)> {
    let block = move |rows: usize, columns: usize| {
        (0..merge * merge).map(move |inner| (rows * merge + inner / merge, columns * merge + inner % merge))
    };
    (0..grid.height / merge).flat_map(move |rows| (0..grid.width / merge).flat_map(move |columns| block(rows, columns)))
}

/// The two entries of a table of `side` between which `index` of `size` lies, and their weights: the corners of picture
/// and table coincide. Arithmetic in f32, operation for operation as Transformers does it.
fn taps_along(index: usize, size: usize, side: usize) -> [(usize, f32); 2] {
    let place = index as f32 * (side - 1) as f32 / (size - 1).max(1) as f32;
    let below = place.floor();
    let weight = |tap: f32| (1.0 - (place - below - tap).abs()).max(0.0);
    [(below as usize, weight(0.0)), ((below as usize + 1).min(side - 1), weight(1.0))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_come_block_by_block() {
        let order: Vec<_> = in_block_order(Grid { height: 2, width: 4 }, 2).collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    }

    #[test]
    fn the_corners_of_picture_and_table_coincide() {
        assert_eq!(taps_along(0, 5, 8), [(0, 1.0), (1, 0.0)]);
        assert_eq!(taps_along(4, 5, 8), [(7, 1.0), (7, 0.0)]);
        assert_eq!(taps_along(2, 5, 8), [(3, 0.5), (4, 0.5)]);
        assert_eq!(taps_along(0, 1, 8), [(0, 1.0), (1, 0.0)]);
    }
}
