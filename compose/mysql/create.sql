-- Run at the first start, and again at each start without Docker. The tests make databases of their own.
CREATE DATABASE IF NOT EXISTS polystore CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS polystore@'%' IDENTIFIED BY 'polystore-test';
GRANT ALL ON *.* TO polystore@'%' WITH GRANT OPTION;
