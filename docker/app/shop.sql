create table stock (item text primary key, price integer not null, pieces integer not null);
insert into stock values ('cake', 4, 12), ('coffee', 2, 80), ('tea', 3, 50);
