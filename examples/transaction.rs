//! A transfer between two accounts: all or nothing, tried again when two of them meet.
//!
//! `DATABASE_URL=postgres://… cargo run --example transaction`

use tokio_postgres::types::Type;
use trackd::store::{Error, Guard, Isolation, Pool, PoolOptions, Statement, TransactionOptions};

/// Not enough, or the database's own trouble.
#[derive(Debug)]
pub enum Refused {
    Balance(i64),
    Database(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Database(error)
    }
}

/// Moves an amount, and returns what is left.
async fn transfer(pool: &Pool, from: i64, to: i64, amount: i64) -> Result<i64, Refused> {
    let options = TransactionOptions { isolation: Isolation::Serializable, attempts: 5, ..Default::default() };
    pool.transaction(options, async |tx: &mut Guard| {
        let balance = Statement::new("SELECT balance FROM accounts WHERE id = $1").bind(from, Type::INT8);
        let balance: i64 = tx.query(balance).await?[0].get(0);
        if balance < amount {
            // Rolled back, and this is what the caller gets.
            return Err(Refused::Balance(balance));
        }
        let change = |id: i64, by: i64| {
            let sql = "UPDATE accounts SET balance = balance + $2 WHERE id = $1";
            Statement::new(sql).bind(id, Type::INT8).bind(by, Type::INT8)
        };
        // Both travel with COMMIT, in one flight.
        tx.defer(change(from, -amount));
        tx.defer(change(to, amount));
        Ok(balance - amount)
    })
    .await
}

/// Makes two accounts and moves money until it is gone. Returns what is left at the end.
pub async fn run(url: &str) -> Result<i64, Refused> {
    let pool = Pool::new(PoolOptions::new(url)?);
    let mut tx = pool.begin().await?;
    tx.batch("make accounts", "CREATE TABLE accounts (id int8 PRIMARY KEY, balance int8)").await?;
    tx.defer(Statement::new("INSERT INTO accounts VALUES (1, 100), (2, 0)"));
    let _landed = tx.commit().await?;
    loop {
        match transfer(&pool, 1, 2, 30).await {
            Ok(left) => println!("moved 30, left {left}"),
            Err(Refused::Balance(left)) => return Ok(left),
            Err(other) => return Err(other),
        }
    }
}

#[tokio::main]
async fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is set");
    match run(&url).await {
        Ok(left) => println!("the rest: {left}"),
        Err(error) => eprintln!("{error:?}"),
    }
}
