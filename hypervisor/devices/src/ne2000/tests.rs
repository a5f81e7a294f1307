//! The cards on a board, and drivers for them.

mod board;
mod driver;
mod linux;
mod properties;
mod receive;
mod registers;
mod transmit;

use driver::*;
