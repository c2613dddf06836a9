//! Few rows on the wire: tuples of the binary COPY format → one array parameter a column.
//!
//! In: rows as shaping encoded them. Out: parameters of one statement. Must not know: statements, tables.

use crate::shape::{Rows, Scalar};
use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::Type;

/// One array a column, in PostgreSQL's binary form. Fields are copied as they are.
pub(super) fn columns(rows: &Rows, types: &[Type]) -> Vec<Bytes> {
    let mut arrays: Vec<BytesMut> = types.iter().map(|ty| header(ty, rows)).collect();
    let mut rest = rows.data.as_slice();
    for _ in 0..rows.count {
        let fields = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        rest = &rest[2..];
        for field in 0..fields {
            let length = i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]).max(0) as usize + 4;
            // The two fields after the columns are the stamp, which travels as two parameters.
            if let Some(array) = arrays.get_mut(field) {
                array.put_slice(&rest[..length]);
            }
            rest = &rest[length..];
        }
    }
    arrays.into_iter().map(BytesMut::freeze).collect()
}

/// The header of a one-dimensional array of `rows.count` elements, which may be null.
fn header(ty: &Type, rows: &Rows) -> BytesMut {
    let mut array = BytesMut::with_capacity(20 + rows.data.len() / 4);
    array.put_i32(i32::from(rows.count > 0));
    array.put_i32(1);
    array.put_u32(ty.oid());
    if rows.count > 0 {
        array.put_i32(rows.count as i32);
        array.put_i32(1);
    }
    array
}

/// The type of a column's fields on the wire; an array column's elements.
pub(super) fn wire_type(scalar: &Scalar) -> Type {
    match scalar {
        Scalar::Text => Type::TEXT,
        Scalar::Integer => Type::INT4,
        Scalar::Bigint => Type::INT8,
        Scalar::Numeric(_) => Type::NUMERIC,
        Scalar::Double => Type::FLOAT8,
        Scalar::Boolean => Type::BOOL,
        Scalar::Date => Type::DATE,
        Scalar::Timestamptz(_) => Type::TIMESTAMPTZ,
        Scalar::Uuid => Type::UUID,
        Scalar::Jsonb => Type::JSONB,
        Scalar::Inet => Type::INET,
        Scalar::Bytea => Type::BYTEA,
    }
}

/// The type of arrays of `ty`.
pub(super) fn of(ty: &Type) -> Type {
    match *ty {
        Type::TEXT => Type::TEXT_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::BOOL => Type::BOOL_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::INET => Type::INET_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        _ => Type::JSONB_ARRAY,
    }
}
