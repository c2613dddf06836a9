//! A hundred thousand rows in by COPY, and out again piece by piece, in memory that does not grow with them.
//!
//! `DATABASE_URL=postgres://… cargo run --example bulk`

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::Type;
use trackd::store::{Error, Pool, PoolOptions, Statement};

const ROWS: i64 = 100_000;

/// Returns the rows copied in, the sum a cursor read, and the bytes copied out.
pub async fn run(url: &str) -> Result<(u64, i64, usize), Error> {
    let pool = Pool::new(PoolOptions::new(url)?);
    let mut tx = pool.begin().await?;
    tx.defer(Statement::new("CREATE TABLE numbers (n int8)"));
    let mut copy = tx.copy_in("COPY numbers FROM STDIN (FORMAT binary)").await?;
    for thousand in 0..ROWS / 1000 {
        let mut tuples = BytesMut::with_capacity(14_000);
        for n in thousand * 1000..(thousand + 1) * 1000 {
            // PostgreSQL's binary form: fields, then length and value of each.
            tuples.put_i16(1);
            tuples.put_i32(8);
            tuples.put_i64(n);
        }
        copy.send(tuples.freeze()).await?;
    }
    let rows = copy.finish().await?;
    let _landed = tx.commit().await?;

    let mut tx = pool.begin().await?;
    let query = Statement::new("SELECT n FROM numbers WHERE n < $1").bind(ROWS, Type::INT8);
    let mut cursor = tx.cursor(query, 5_000).await?;
    let mut sum = 0;
    loop {
        let piece = cursor.next().await?;
        if piece.is_empty() {
            break;
        }
        sum += piece.iter().map(|row| row.get::<_, i64>(0)).sum::<i64>();
    }
    cursor.close();
    let mut copy = tx.copy_out("COPY numbers TO STDOUT").await?;
    let mut bytes = 0;
    while let Some(piece) = copy.next().await? {
        bytes += piece.len();
    }
    Ok((rows, sum, bytes))
}

#[tokio::main]
async fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is set");
    match run(&url).await {
        Ok((rows, sum, bytes)) => println!("{rows} rows in, their sum {sum}, {bytes} bytes out"),
        Err(error) => eprintln!("{error}: {}", error.hint().unwrap_or_default()),
    }
}
